//! The short forms of the campaigns; `docs/campaigns.md` tells how to run the long ones.
//!
//! Each prints its seed, which nextest shows when the test fails. `./check` runs the kills, power cuts and
//! rows in `today`: a fifth of the rounds, of smaller images, with the seed of the day, which is the same for everybody who looks
//! for what it found, and another one tomorrow. `./check --all` runs everything.

use dind_tests::campaign::rows::{self, Database, Faults, Scenario};
use dind_tests::campaign::{Random, Settings, Tally, Way, draw, kill, power, stop};

/// Large enough to be written back in parts, small enough for a test.
const LARGEST: u64 = 64 << 20;

fn settings(rounds: usize) -> Settings {
    with_seed(Random::seed(), rounds)
}

fn with_seed(seed: u64, rounds: usize) -> Settings {
    println!("seed {seed}");
    Settings { rounds, seed, largest: LARGEST, in_containerd: false }
}

fn say(line: &str) {
    println!("{line}");
}

#[track_caller]
fn assert_nothing_failed(tally: &Tally) {
    println!("{}", draw(std::slice::from_ref(tally)));
    assert_eq!(tally.failures(), [""; 0], "{:#?}", tally.notes);
}

/// The same, and something was there to be kept.
#[track_caller]
fn assert_kept(tally: &Tally) {
    assert_nothing_failed(tally);
    assert!(tally.total().kept > 0, "{tally:?}");
}

#[test]
fn what_was_acknowledged_survives_kills() {
    let tally = kill::run(Way::Host, &settings(20), &mut say).unwrap();
    assert_kept(&tally);
}

#[test]
fn what_was_acknowledged_survives_kills_of_a_host_that_is_not_pid_1() {
    let tally = kill::run(Way::HostUnderInit, &settings(6), &mut say).unwrap();
    assert_kept(&tally);
}

/// The images of a store are there after each kill, and what was built, loaded and committed on their layers.
#[test]
fn a_sealed_appliance_survives_kills_and_power_cuts() {
    let tally = kill::run(Way::Sealed, &settings(5), &mut say).unwrap();
    assert_nothing_failed(&tally);
    let tally = power::run(Way::Sealed, &settings(3), &mut say).unwrap();
    assert_kept(&tally);
}

/// What a sync has covered is there after a power cut, and nothing that is listed is damaged.
#[test]
fn what_was_synced_survives_power_cuts() {
    let tally = power::run(Way::Host, &settings(10), &mut say).unwrap();
    assert_kept(&tally);
}

/// The same in containerd's image store, of which engine 26.1 tells nobody that BuildKit has built something.
#[test]
fn what_was_synced_survives_power_cuts_in_containerds_image_store() {
    let settings = Settings { in_containerd: true, ..settings(6) };
    let tally = power::run(Way::Host, &settings, &mut say).unwrap();
    assert_kept(&tally);
}

/// Where nothing was synced, things may be gone after a power cut; what is listed is whole all the same.
#[test]
fn nothing_is_listed_and_damaged_where_nothing_was_synced() {
    let tally = power::run(Way::HostUnsynced, &settings(4), &mut say).unwrap();
    assert_nothing_failed(&tally);
}

const POSTGRES: Scenario =
    Scenario { database: Database::Postgres, faults: Faults::Kills, way: Way::Host, durable: true };

/// A database syncs by itself: no row whose commit it has answered may be gone.
#[test]
fn rows_that_postgres_has_committed_survive_kills_and_power_cuts() {
    let tally = rows::run(POSTGRES, &settings(4), &mut say).unwrap();
    assert_kept(&tally);
    let cuts = Scenario { faults: Faults::PowerCuts, ..POSTGRES };
    let tally = rows::run(cuts, &settings(3), &mut say).unwrap();
    assert_kept(&tally);
}

/// The control: where the database answers before it syncs, a power cut loses rows, and the campaign sees it.
#[test]
fn rows_that_postgres_has_not_synced_are_found_to_be_lost() {
    let control = Scenario { faults: Faults::PowerCuts, durable: false, ..POSTGRES };
    let tally = rows::run(control, &settings(1), &mut say).unwrap();
    println!("{}", draw(std::slice::from_ref(&tally)));
    let (lost, failures) = (tally.total().lost, tally.failures());
    assert_eq!(
        failures,
        [format!("{lost} rows gone though their commit was answered")],
        "{:#?}",
        tally.notes
    );
}

#[test]
fn stops_are_clean_whatever_runs_inside() {
    let tally = stop::run(Way::Host, &settings(1), false, &[3, 10], &mut say).unwrap();
    assert_nothing_failed(&tally);
}

/// Nearly a minute of waiting for a container that wants more: apart from the others, which need the machine to themselves.
#[test]
fn a_stop_with_much_time_is_clean_whatever_runs_inside() {
    let tally = stop::run(Way::Host, &settings(1), false, &[60], &mut say).unwrap();
    assert_nothing_failed(&tally);
}

mod today {
    use super::*;

    fn settings(rounds: usize) -> Settings {
        Settings { largest: 16 << 20, ..with_seed(Random::seed_of_the_day(), rounds) }
    }

    #[test]
    fn kills() {
        let tally = kill::run(Way::Host, &settings(5), &mut say).unwrap();
        assert_kept(&tally);
    }

    #[test]
    fn kills_of_a_host_that_is_not_pid_1() {
        let tally = kill::run(Way::HostUnderInit, &settings(1), &mut say).unwrap();
        assert_nothing_failed(&tally);
        assert!(tally.total().acknowledged > 0, "{tally:?}");
    }

    #[test]
    fn power_cuts() {
        let tally = power::run(Way::Host, &settings(3), &mut say).unwrap();
        assert_kept(&tally);
    }

    #[test]
    fn power_cuts_in_containerds_image_store() {
        let settings = Settings { in_containerd: true, ..settings(1) };
        let tally = power::run(Way::Host, &settings, &mut say).unwrap();
        assert_nothing_failed(&tally);
        assert!(tally.total().acknowledged > 0, "{tally:?}");
    }

    #[test]
    fn rows_of_postgres() {
        let tally = rows::run(POSTGRES, &settings(1), &mut say).unwrap();
        assert_kept(&tally);
        let cuts = Scenario { faults: Faults::PowerCuts, ..POSTGRES };
        let tally = rows::run(cuts, &settings(1), &mut say).unwrap();
        assert_kept(&tally);
    }

    #[test]
    fn stops() {
        let tally = stop::run(Way::Host, &settings(1), false, &[3], &mut say).unwrap();
        assert_nothing_failed(&tally);
    }
}
