//! One host, to which nothing was said, and all that such a host can be asked: each question is in the file of its subject.

use dind_tests::{Host, ask, questions};

use crate::{adduserkey, asking, capabilities, certificates, engines, machine, nested};

#[test]
fn answers_every_question() {
    ask(
        &Host::options().start(),
        questions![
            asking::status_says_how_the_host_is,
            asking::docker_shows_the_host_healthy,
            certificates::keys_are_private_and_that_of_the_client_belongs_to_group_2376,
            engines::the_oldest_version_of_the_api_that_the_engine_has_is_answered,
            adduserkey::an_image_without_sshd_names_the_one_to_use,
            nested::a_container_runs_inside_a_host,
            nested::an_image_is_built_over_tls_from_outside_and_run,
            nested::a_nested_container_reaches_the_network_of_the_host,
            nested::signals_reach_what_runs_in_a_nested_container,
            nested::the_image_brings_compose_and_both_builders,
            nested::packets_are_no_larger_than_the_way_out_takes,
            nested::a_container_of_another_user_is_joined,
            capabilities::the_paths_that_docker_masks_may_stay_masked,
            machine::a_second_host_in_the_same_place_is_refused_and_harms_nothing,
            machine::a_port_already_taken_is_named,
        ],
    );
}
