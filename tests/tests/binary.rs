//! The file that is PID 1.

use dind_tests::{Binary, Call};

#[test]
fn dind_init_is_static() {
    let binary = Binary::new();
    let ldd = Call::new("ldd").arg(binary.path().to_string_lossy()).env("LC_ALL", "C").run();
    let said = ldd.stdout + &ldd.stderr;
    assert!(said.contains("not a dynamic executable") || said.contains("statically linked"), "{said}");
}
