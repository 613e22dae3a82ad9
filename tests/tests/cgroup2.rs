//! A host on cgroup v2, for real: on a machine that has v2, every host is on it, and on one that has v1, this one makes
//! itself a namespace in the machine's v2 hierarchy, with the one controller that Docker leaves to it there (hugetlb).

use dind_tests::{Host, HostOptions, docker};

/// A group in the machine's hierarchy. The container's own would not do: there the engine of a v1 machine could not
/// `docker exec` any more, because its runc knows the rule of the leaves only where all is v2.
const GROUP: &str = "dind-test-cgroup2";

/// What brings a shell into the group, with a controller to delegate, and then into a cgroup namespace with only v2 in
/// it, read-only as Docker leaves it; and what takes all that back.
const ENTER: &str = "mkdir -p /run/v2 && mount -t cgroup2 cgroup2 /run/v2 && echo +hugetlb >/run/v2/cgroup.subtree_control && \
    find /run/v2 -depth -path '*/GROUP*' -type d -exec rmdir {} + && mkdir /run/v2/GROUP && echo $$ >/run/v2/GROUP/cgroup.procs && umount /run/v2 && \
    exec unshare --cgroup sh -c 'umount -R /sys/fs/cgroup && mount -t cgroup2 -o ro cgroup2 /sys/fs/cgroup && exec dind-init'";
const LEAVE: &str = "mkdir -p /run/v2 && mount -t cgroup2 cgroup2 /run/v2 && \
    find /run/v2/GROUP -depth -type d -exec rmdir {} + && echo -hugetlb >/run/v2/cgroup.subtree_control";

fn shell(script: &str) -> HostOptions {
    Host::options().run(["--entrypoint", "sh"]).arguments(["-c", &script.replace("GROUP", GROUP)])
}

/// The machine's hierarchy, put back as it was.
struct PutBack;

impl Drop for PutBack {
    fn drop(&mut self) {
        let left = shell(LEAVE).create().run_to_its_end();
        if !std::thread::panicking() {
            left.ok();
        }
    }
}

#[test]
fn processes_move_to_a_leaf_and_controllers_are_delegated() {
    let machine = docker(["info", "-f", "{{.CgroupVersion}}"]).ok();
    let (_put_back, options) =
        if machine == "2" { (None, Host::options()) } else { (Some(PutBack), shell(ENTER)) };
    let host = options.start();

    let offered = host.shell("cat /sys/fs/cgroup/cgroup.controllers").ok();
    assert!(!offered.is_empty(), "no controller is there to be delegated");
    assert_eq!(host.shell("cat /sys/fs/cgroup/cgroup.subtree_control").ok(), offered);
    assert_eq!(host.shell("cat /sys/fs/cgroup/cgroup.procs").ok(), "", "the root has no processes");
    assert!(host.shell("cat /proc/1/cgroup").ok().ends_with("/dind"));
    assert!(host.logs().contains("cgroups: v2"), "{}", host.logs());

    host.load_busybox();
    host.assert_runs_containers();
    assert_eq!(host.docker(["info", "-f", "{{.CgroupVersion}}"]).ok(), "2");
    assert_eq!(host.shell("cat /sys/fs/cgroup/docker/cgroup.controllers").ok(), offered);

    host.stop();
    host.assert_exited(0);
    host.start();
    host.assert_runs_containers();
    host.stop();
    host.assert_exited(0);
}
