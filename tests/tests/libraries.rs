//! Client libraries that nobody here wrote, against a host, over TLS: Python's `docker` and `testcontainers`, from PyPI.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use dind_tests::{Call, Client, Host};
use nix::fcntl::{Flock, FlockArg};

fn python(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(file)
}

/// A Python that has the libraries: made once, kept below cargo's target folder for as long as the versions stay the same.
#[track_caller]
fn interpreter() -> String {
    // Debian's own: another one in PATH may not last.
    let system = if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    // A new Python has a folder of its own for libraries.
    let version = Call::new(system).arg("--version").attempt().map(|ended| ended.stdout);
    let wanted = fs::read_to_string(python("requirements.txt")).unwrap() + &version.unwrap_or_default();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-libraries");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    // Each test is a process of its own.
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let (venv, installed) = (folder.join("venv"), folder.join("installed"));
    let interpreter = venv.join("bin/python").to_string_lossy().into_owned();
    if fs::read_to_string(&installed).is_ok_and(|there| there == wanted) && Path::new(&interpreter).exists() {
        return interpreter;
    }
    let _ = fs::remove_dir_all(&venv);
    let step = |call: Call, help: &str| {
        let failed = match call.within(50).attempt() {
            Ok(ended) if ended.code == Some(0) => return,
            Ok(ended) => ended.to_string(),
            Err(why) => why,
        };
        panic!("the Python libraries cannot be installed: {failed}\n  help: {help}, or run ./check");
    };
    let venv = venv.to_string_lossy();
    step(
        Call::new(system).args(["-m", "venv", &*venv]),
        "apt-get install --no-install-recommends python3 python3-venv",
    );
    let install =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"];
    step(
        Call::new(&interpreter).args(install).arg(python("requirements.txt").to_string_lossy()),
        &format!(
            "{interpreter} {} {}, with a way to PyPI",
            install.join(" "),
            python("requirements.txt").display()
        ),
    );
    fs::write(&installed, wanted).unwrap();
    interpreter
}

/// A call of Python as after `export DOCKER_HOST= DOCKER_TLS_VERIFY= DOCKER_CERT_PATH=`.
fn script(client: &Client, file: &str) -> Call {
    let call = client.call_of(&interpreter()).arg(python(file).to_string_lossy());
    // The library `requests` takes these for more than the authority that it is told of in the program.
    call.env_remove("REQUESTS_CA_BUNDLE").env_remove("CURL_CA_BUNDLE")
}

#[test]
fn the_python_library_does_its_work() {
    let host = Host::options().start();
    let said = script(&host.client(), "docker_library.py").stdin(dind_tests::busybox()).run().ok();
    assert_eq!(said.lines().collect::<Vec<_>>(), ["images", "containers", "ports and volumes", "events"]);
    assert_eq!(host.docker(["ps", "-aq"]).ok(), "");
    host.stop();
    host.assert_exited(0);
}

#[test]
fn testcontainers_reach_what_they_start_at_the_hosts_address() {
    let host = Host::options().start();
    host.load_busybox();
    host.load_image("postgres");
    let client = host.client();
    let call = script(&client, "testcontainers_library.py").env("TESTCONTAINERS_RYUK_DISABLED", "true");
    assert_eq!(call.within(120).run().ok(), format!("{}\npostgres", host.ip()));
    assert_eq!(host.docker(["ps", "-aq"]).ok(), "");
}
