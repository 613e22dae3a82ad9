//! The file that is PID 1.

use dind_tests::{Call, Host, docker};

#[test]
fn dind_init_is_static() {
    let host = Host::options().create();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dind-init");
    let file = file.to_str().unwrap();
    docker(["cp", "-L", &format!("{}:/usr/sbin/dind-init", host.name()), file]).ok();
    let ldd = Call::new("ldd").arg(file).env("LC_ALL", "C").run();
    let said = ldd.stdout + &ldd.stderr;
    assert!(said.contains("not a dynamic executable") || said.contains("statically linked"), "{said}");
}
