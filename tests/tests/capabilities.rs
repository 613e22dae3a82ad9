//! The options that a host needs, each taken away in turn: docs/capabilities.md says what happens then.

use dind_tests::{Call, Ended, Host, HostOptions, POLITE, RUN_OPTIONS, docker, image};
use serde_json::Value;

/// What Docker gives to every container.
const DEFAULTS: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// The documented options, each with its value, but for this one.
fn all_but(value: &str) -> Vec<&'static str> {
    assert!(RUN_OPTIONS.contains(&value), "{value} is not a documented option");
    RUN_OPTIONS.chunks(2).filter(|pair| pair[1] != value).flatten().copied().collect()
}

/// `dind-init doctor` in a container of its own, where no host runs.
fn doctor(options: &[&str]) -> Ended {
    let run = ["run", "--rm"].iter().chain(options).copied().chain([image(), "doctor", "--json"]);
    Call::new("docker").args(run).run()
}

fn verdict(diagnosis: &Ended, subject: &str) -> String {
    let document: Value =
        serde_json::from_str(&diagnosis.stdout).unwrap_or_else(|e| panic!("{e}: {diagnosis}"));
    let findings = document["findings"].as_array().cloned().unwrap_or_default();
    let found = findings.into_iter().find(|finding| finding["subject"] == subject);
    found.map_or_else(|| "nothing".to_owned(), |finding| finding["verdict"].as_str().unwrap().to_owned())
}

fn refused_without(value: &str, subject: &str, texts: &[&str]) {
    Host::options().instead(&all_but(value)).refused(69, texts);
    let diagnosis = doctor(&all_but(value)).exits(69);
    assert_eq!(verdict(&diagnosis, subject), "missing", "{value}: {diagnosis}");
}

#[test]
fn with_all_of_them_nothing_is_missing() {
    let diagnosis = doctor(&RUN_OPTIONS).exits(0);
    for subject in ["containers", "devices"] {
        assert_eq!(verdict(&diagnosis, subject), "good", "{diagnosis}");
    }
    let host = Host::options().start();
    host.load_busybox();
    host.assert_runs_containers();
    let privileged =
        ["run", "--rm", "--privileged", "--device", "/dev/full", "busybox", "cat", "/proc/mounts"];
    host.docker(privileged).ok();
    let diagnosis = host.exec(["dind-init", "doctor", "--json"]).exits(0);
    assert_eq!(verdict(&diagnosis, "containers"), "good", "{diagnosis}");
}

#[test]
fn without_a_capability_of_its_own_a_host_refuses_to_start() {
    for capability in ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"] {
        refused_without(
            capability,
            "capabilities",
            &[&format!("this container lacks {capability}:"), &format!("--cap-add {capability}")],
        );
    }
}

#[test]
fn under_dockers_seccomp_profile_a_host_refuses_to_start() {
    let texts = ["may not join a session keyring", "--security-opt seccomp=unconfined"];
    refused_without("seccomp=unconfined", "containers", &texts);
}

/// Where there is no AppArmor the option changes nothing.
#[test]
fn under_dockers_apparmor_profile_a_host_refuses_to_start() {
    let without = all_but("apparmor=unconfined");
    if docker(["info", "--format", "{{.SecurityOptions}}"]).ok().contains("apparmor") {
        Host::options().instead(&without).refused(69, &["--security-opt apparmor=unconfined"]);
    } else {
        let host = Host::options().instead(&without).start();
        host.load_busybox();
        host.assert_runs_containers();
    }
}

#[test]
fn with_dockers_device_rules_only_privileged_containers_fail() {
    let host = Host::options().instead(&all_but("a *:* rwm")).start();
    host.load_busybox();
    host.assert_runs_containers();
    let diagnosis = host.exec(["dind-init", "doctor", "--json"]).exits(0);
    assert_eq!(verdict(&diagnosis, "devices"), "fallback", "{diagnosis}");
    assert!(
        host.alarms().iter().any(|line| line.message.contains("--device-cgroup-rule")),
        "{:?}",
        host.alarms()
    );
    host.docker(["run", "--rm", "--privileged", "busybox", "true"]).fails();
    // What Docker gives to every container can be passed on.
    host.docker(["run", "--rm", "--device", "/dev/full", "busybox", "ls", "/dev/full"]).ok();
}

#[test]
fn none_of_dockers_own_capabilities_can_be_dropped() {
    let refusals = Host::options().refusals();
    for capability in DEFAULTS {
        let said = [format!("this container lacks {capability},"), format!("--cap-add {capability}")];
        let said = said.each_ref().map(String::as_str);
        // What a container never had, and what a program in one has lost, is the same to the kernel.
        let dropped = format!("-{}", capability.to_lowercase());
        refusals.refuses(&["setpriv", "--bounding-set", &dropped], &[], 69, &said);
        if capability == DEFAULTS[0] {
            Host::options().run(["--cap-drop", capability]).refused(69, &said);
        }
    }
}

#[test]
fn seventeen_capabilities_are_enough() {
    let mut options = vec!["--cap-drop", "ALL"];
    options.extend(DEFAULTS.iter().flat_map(|capability| ["--cap-add", capability]));
    let host = Host::options().run(options).start();
    host.load_busybox();
    host.assert_runs_containers();
    host.docker(["run", "--rm", "--privileged", "busybox", "true"]).ok();
    host.build("app", "FROM busybox\nRUN echo built > /built\n");
    host.stop();
    host.assert_exited(0);
}

/// A container inside is given what its host has, and no more.
#[test]
fn a_capability_that_a_container_asks_for_is_given_to_the_host_first() {
    let asked =
        ["run", "--rm", "--cap-add", "IPC_LOCK", "--cap-drop", "ALL", "busybox", "cat", "/proc/self/status"];
    let host = Host::options().start();
    host.load_busybox();
    host.docker(asked).fails().says(&["invalid CapAdd", "CAP_IPC_LOCK"]);
    host.docker(["run", "--rm", "--cap-add", "ALL", "busybox", "true"]).ok();
    drop(host);
    let host = Host::options().run(["--cap-add", "IPC_LOCK"]).start();
    host.load_busybox();
    // Capability 14 and no other (capability.h).
    assert!(host.docker(asked).ok().contains("CapEff:\t0000000000004000"));
}

/// `/proc/sys` arrives read-only and is made writable; the rest of what Docker masks is in nobody's way.
pub(crate) fn the_paths_that_docker_masks_may_stay_masked(host: &Host) {
    host.load_busybox();
    assert!(
        host.shell("grep -c ' /proc/keys ' /proc/self/mountinfo").code == Some(0),
        "nothing is masked here"
    );
    host.docker([
        "run",
        "--rm",
        "--sysctl",
        "net.core.somaxconn=99",
        "busybox",
        "cat",
        "/proc/sys/net/core/somaxconn",
    ])
    .ok();
    host.docker(["run", "--rm", "--privileged", "busybox", "ls", "/proc/keys"]).ok();
    assert_eq!(host.alarms(), []);
}

/// A host with the documented options, but with a seccomp profile that refuses this system call and no other.
fn refusing(call: &str) -> (tempfile::NamedTempFile, HostOptions) {
    let profile = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["{call}"], "action": "SCMP_ACT_ERRNO"}}]}}"#
    );
    std::fs::write(profile.path(), text).unwrap();
    let seccomp = format!("seccomp={}", profile.path().display());
    let options: Vec<&str> =
        all_but("seccomp=unconfined").into_iter().chain(["--security-opt", &seccomp]).collect();
    (profile, Host::options().instead(&options))
}

/// A container whose mounts are refused: the host's own are, too, and the cause is named and not the first of its effects.
#[test]
fn where_nobody_may_mount_the_cause_is_named() {
    let (_profile, options) = refusing("mount");
    options.refused(69, &["may not mount", "apparmor=unconfined"]);
}

#[test]
fn where_nobody_may_join_a_container_the_cause_is_named() {
    let (_profile, options) = refusing("setns");
    options.refused(69, &["may not be joined", "setns", "seccomp=unconfined"]);
}

/// ptrace(2) itself is for debuggers: what joins a container needs the capability and not the call.
#[test]
fn without_the_call_ptrace_containers_of_other_users_are_joined() {
    let (_profile, options) = refusing("ptrace");
    let host = options.start();
    host.load_busybox();
    host.run_nested("other", &["--user", "1234"], POLITE);
    assert_eq!(host.docker(["exec", "other", "id", "-u"]).ok(), "1234");
}
