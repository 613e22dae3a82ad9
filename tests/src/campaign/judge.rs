//! What is there after a cut or a kill, next to what was acknowledged before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use time::OffsetDateTime;

use super::content::{Checksums, LABEL, Payload, parse_sha256sum};
use super::engine::Engine;
use super::events::Events;
use super::ledger::{Claim, Shared, Thing};
use super::tally::{Fate, Tally};

/// Prints the SHA-256 of every file of an image, whoever made it.
const CHECKSUMS: &str =
    "cd / && busybox find bin data -xdev -type f 2>/dev/null | busybox xargs busybox sha256sum";
/// How long the engine may take for a removal.
const REMOVAL: Duration = Duration::from_secs(20);
/// How many seconds a container with a restart policy has to come back.
const COME_BACK: u64 = 30;

/// Until when the engine's word counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    /// A kill: whatever was acknowledged.
    Everything,
    /// A power cut: what was acknowledged before the last sync that had ended, and what earlier cuts have left.
    Before {
        /// When that sync had begun; `None`: there was none.
        sync: Option<OffsetDateTime>,
        /// When the power was cut.
        cut: OffsetDateTime,
    },
}

impl Due {
    fn covers(self, claim: &Claim, events: &Events) -> bool {
        match self {
            Due::Everything => true,
            Due::Before { .. } if claim.was_kept => true,
            Due::Before { sync, .. } => {
                sync.is_some_and(|sync| events.moment(&claim.subjects, claim.seen) < sync)
            }
        }
    }

    /// How old a claim was, and how old the last sync.
    fn ages(self, claim: &Claim, events: &Events) -> String {
        let Due::Before { sync, cut } = self else { return "a process was killed".into() };
        if claim.was_kept {
            return "an earlier cut had left it".into();
        }
        let age = |moment: OffsetDateTime| format!("{:.3} s", (cut - moment).as_seconds_f64());
        let sync = sync.map_or("never".into(), age);
        let done = events.moment(&claim.subjects, claim.seen);
        format!("done {}, answered {}, last sync begun {sync} before the cut", age(done), age(claim.seen))
    }
}

/// Everything that an engine lists, looked at to the last byte.
#[derive(Debug)]
struct Found {
    /// The image of each name.
    names: HashMap<String, String>,
    /// What is wrong with each image.
    images: BTreeMap<String, Vec<String>>,
    /// What the first look at an image said, where the second found it whole.
    unsteady: Vec<String>,
    volumes: BTreeSet<String>,
    contents: Checksums,
    /// The states of containers.
    containers: HashMap<String, String>,
}

/// Compares what is there with the ledger, counts it in the tally, and takes out of the ledger what is gone.
pub(super) fn judge(
    engine: &Engine,
    ledger: &Shared,
    events: &Events,
    due: Due,
    tally: &mut Tally,
) -> Result<()> {
    let found = Found::look(engine, ledger)?;
    let had_to_be_kept = |id: &String| {
        let claims = &ledger.lock().claims;
        claims.iter().any(|claim| due.covers(claim, events) && found.names.get(&claim.name) == Some(id))
    };
    for (id, wrong) in found.images.iter().filter(|(_, wrong)| !wrong.is_empty()) {
        let names: Vec<&str> =
            found.names.iter().filter(|(_, of)| *of == id).map(|(name, _)| name.as_str()).collect();
        let name = if names.is_empty() { id.as_str() } else { &names.join(", ") };
        tally.note(format!("{name} is listed and damaged, {} files: {}", wrong.len(), wrong[0]));
        tally.damaged_images += usize::from(!engine.in_containerd || had_to_be_kept(id));
        let words = engine.own_words(0);
        if !words.is_empty() {
            tally.note(format!("the host's log:\n{words}"));
        }
    }
    tally.unsteady_runs += found.unsteady.len();
    found
        .unsteady
        .iter()
        .for_each(|what| tally.note(format!("an image was whole only at the second look: {what}")));
    tally.dead += found.containers.values().filter(|state| *state == "dead").count();
    tally.verified_images += found.images.len();
    let claims = std::mem::take(&mut ledger.lock().claims);
    let mut kept = Vec::new();
    for mut claim in claims {
        let is_due = due.covers(&claim, events);
        let fate = found.fate(&claim, is_due);
        if !claim.may_go {
            tally.count(claim.kind, fate, is_due, claim.was_kept);
            if matches!(fate, Fate::Lost | Fate::Damaged) {
                let ages = due.ages(&claim, events);
                tally.note(format!("{} {} is {fate:?}: {ages}", claim.kind.name(), claim.name));
            }
        }
        if fate == Fate::Kept {
            claim.was_kept = true;
            kept.push(claim);
        }
    }
    ledger.lock().claims = kept;
    Ok(())
}

/// Waits until the containers that a restart policy keeps are running again.
pub(super) fn wait_for_containers(engine: &Engine, ledger: &Shared) -> Result<()> {
    let runs = |claim: &&Claim| matches!(claim.thing, Thing::Container { runs: true }) && !claim.may_go;
    let wanted: BTreeSet<String> =
        ledger.lock().claims.iter().filter(runs).map(|claim| claim.name.clone()).collect();
    let mut last = Vec::new();
    for _ in 0..COME_BACK * 4 {
        let states = containers(engine)?;
        last =
            wanted.iter().filter(|name| states.get(*name).is_none_or(|state| state != "running")).collect();
        if last.is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    anyhow::bail!("containers that restart always did not come back within {COME_BACK} s: {last:?}")
}

/// What is wrong with the image of this name.
pub(super) fn differences(engine: &Engine, name: &str, payload: &Payload) -> Result<Vec<String>> {
    Ok(look_twice(engine, name, payload, false)?.0)
}

/// What is wrong with an image, and, where that is nothing, what seemed to be at the first look. On a busy machine the engine may fail
/// to run a container, or lose what it prints; what is on the disk stays what it is.
fn look_twice(
    engine: &Engine,
    image: &str,
    payload: &Payload,
    in_part: bool,
) -> Result<(Vec<String>, Option<String>)> {
    let first = look_at(engine, image, payload, in_part)?;
    if first.is_empty() {
        return Ok((first, None));
    }
    let second = look_at(engine, image, payload, in_part)?;
    let unsteady = first.into_iter().next().filter(|_| second.is_empty());
    Ok((second, unsteady))
}

impl Found {
    fn look(engine: &Engine, ledger: &Shared) -> Result<Self> {
        let acknowledged: HashMap<String, Arc<Payload>> = ledger.lock().images().into_iter().collect();
        let mut names = image_names(engine)?;
        // Engine 26.1 keeps from its list what containerd's image store has pulled without a blob that was unpacked from another one.
        for name in acknowledged.keys() {
            let inspected = engine.docker(&["image", "inspect", "--format", "{{.Id}}", name])?;
            if inspected.code == Some(0) && !names.contains_key(name) {
                names.insert(name.clone(), inspected.stdout.trim().to_owned());
            }
        }
        let mut images = BTreeMap::new();
        let mut unsteady = Vec::new();
        for (id, (label, layers)) in labels(engine, names.values())? {
            if layers == "0" {
                // The first steps of a build on nothing that was cut off: there is nothing in it to be damaged.
                images.insert(id, Vec::new());
                continue;
            }
            let claimed = names.iter().any(|(name, of)| *of == id && acknowledged.contains_key(name));
            let payload = ledger.lock().payloads.get(&label).map(Arc::clone);
            let payload = payload.unwrap_or_else(|| Arc::new(Payload::base()));
            // What a classic build that was cut off has left before its first COPY has nothing in it.
            let is_empty = !claimed
                && engine.ask(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", &id])? == "0";
            let (wrong, first) =
                if is_empty { (Vec::new(), None) } else { look_twice(engine, &id, &payload, !claimed)? };
            unsteady.extend(first);
            images.insert(id.clone(), wrong);
        }
        let volumes: BTreeSet<String> =
            engine.ask(&["volume", "ls", "-q"])?.lines().map(str::to_owned).collect();
        let contents = contents(engine, &volumes)?;
        Ok(Self { names, images, unsteady, volumes, contents, containers: settled_containers(engine)? })
    }

    fn fate(&self, claim: &Claim, is_due: bool) -> Fate {
        let gone = if is_due { Fate::Lost } else { Fate::Younger };
        match &claim.thing {
            Thing::Image(_) => match self.names.get(&claim.name).and_then(|id| self.images.get(id)) {
                Some(wrong) if wrong.is_empty() => Fate::Kept,
                Some(_) => Fate::Damaged,
                None => gone,
            },
            Thing::Volume if self.volumes.contains(&claim.name) => Fate::Kept,
            Thing::Content { volume, checksum }
                if self.contents.get(&format!("{volume}/{}", claim.name)) == Some(checksum) =>
            {
                Fate::Kept
            }
            Thing::Container { .. } if self.containers.contains_key(&claim.name) => Fate::Kept,
            _ => gone,
        }
    }
}

/// The image of every name.
fn image_names(engine: &Engine) -> Result<HashMap<String, String>> {
    let format = "{{.Repository}}:{{.Tag}}\t{{.ID}}";
    let list = engine.ask(&["images", "--no-trunc", "--format", format])?;
    let lines = list.lines().filter_map(|line| line.split_once('\t'));
    Ok(lines.map(|(name, id)| (name.to_owned(), id.to_owned())).collect())
}

/// Every image that is listed, with or without a name: the payload that it says it holds, and how many layers it has.
fn labels<'a>(
    engine: &Engine,
    named: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, (String, String)>> {
    let list = engine.ask(&["images", "--no-trunc", "-q"])?;
    let ids: BTreeSet<String> = list.lines().map(str::to_owned).chain(named.cloned()).collect();
    let mut labels = BTreeMap::new();
    for id in ids {
        let format = format!("{{{{index .Config.Labels {LABEL:?}}}}} {{{{len .RootFS.Layers}}}}");
        let said = engine.ask(&["image", "inspect", "--format", &format, &id])?;
        let (label, layers) = said.split_once(' ').context("no label and layers")?;
        labels.insert(id, (label.to_owned(), layers.to_owned()));
    }
    Ok(labels)
}

/// Runs an image and compares every file in it.
fn look_at(engine: &Engine, image: &str, payload: &Payload, in_part: bool) -> Result<Vec<String>> {
    let run =
        ["run", "--rm", "--network", "none", "--entrypoint", "/bin/busybox", image, "sh", "-c", CHECKSUMS];
    let ran = engine.docker(&run)?;
    if ran.code != Some(0) {
        return Ok(vec![format!("it does not run: {}", ran.stderr.trim())]);
    }
    Ok(payload.differences(&parse_sha256sum(&ran.stdout), in_part))
}

/// The SHA-256 of every file in these volumes, by `VOLUME/FILE`.
fn contents(engine: &Engine, volumes: &BTreeSet<String>) -> Result<Checksums> {
    if volumes.is_empty() {
        return Ok(Checksums::new());
    }
    let mounts: Vec<String> = volumes.iter().map(|volume| format!("{volume}:/v/{volume}")).collect();
    let mut run = vec!["run", "--rm", "--network", "none"];
    run.extend(mounts.iter().flat_map(|mount| ["-v", mount]));
    run.extend([
        "busybox:base",
        "sh",
        "-c",
        "cd /v && busybox find . -type f | busybox xargs busybox sha256sum",
    ]);
    Ok(parse_sha256sum(&engine.ask(&run)?))
}

/// The states of containers when no removal is under way. The engine calls a container dead for a moment in every removal, also in those
/// that it finishes by itself after a kill; dead for good is one that stays so.
fn settled_containers(engine: &Engine) -> Result<HashMap<String, String>> {
    let begin = Instant::now();
    loop {
        let states = containers(engine)?;
        let is_settled = states.values().all(|state| state != "dead" && state != "removing");
        if is_settled || begin.elapsed() > REMOVAL {
            return Ok(states);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn containers(engine: &Engine) -> Result<HashMap<String, String>> {
    let list = engine.ask(&["ps", "-a", "--format", "{{.Names}}\t{{.State}}"])?;
    let lines = list.lines().filter_map(|line| line.split_once('\t'));
    Ok(lines.map(|(name, state)| (name.to_owned(), state.to_owned())).collect())
}
