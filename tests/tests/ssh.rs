//! Logging in over ssh, with the real client of OpenSSH and the docker command's own ssh transport.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use dind_tests::{
    Call, Host, HostOptions, Line, POLITE, STUBBORN, SshClient, docker, ssh_image, until, until_equal,
};

/// A host on which derek may log in.
#[track_caller]
fn host_of(client: &SshClient, options: HostOptions) -> Host {
    let host = options.ssh().start();
    host.exec(["adduserkey", "derek", &client.key()]).ok();
    host
}

/// The open descriptors of dind-init itself: the least of several looks, for a sync or a question has one while it lasts.
#[track_caller]
fn descriptors(host: &Host) -> usize {
    let looks = "for look in 1 2 3 4 5 6 7 8 9 10; do ls /proc/1/fd | wc -l; sleep 0.1; done";
    let looks = host.shell(looks).ok();
    looks.lines().map(|count| count.trim().parse().unwrap()).min().unwrap()
}

/// What runs in a host without sessions.
const IDLE: [&str; 4] = ["containerd", "dind-init", "dockerd", "sshd"];

/// Waits until nothing is left of sessions: no process, zombie or descriptor.
#[track_caller]
fn assert_nothing_is_left(host: &Host, at_first: usize) {
    until_equal("only the host's own processes to be left", 20, &IDLE[..], || host.process_names());
    until_equal("as many descriptors as at first", 20, at_first, || descriptors(host));
}

#[test]
fn a_user_logs_in_runs_containers_and_copies_files() {
    let client = SshClient::new();
    let host = host_of(&client, Host::options().env("LOCAL", "true"));
    host.load_busybox();
    let at_first = descriptors(&host);
    let date = client.ssh("derek", &host, "sudo docker run --rm busybox date +%F").run().ok();
    assert_eq!(date.split('-').map(str::len).collect::<Vec<_>>(), [4, 2, 2], "{date}");
    // The group is enough, too.
    assert_eq!(client.ssh("derek", &host, "docker run --rm busybox echo hi").run().ok(), "hi");
    assert_eq!(client.ssh("derek", &host, "id -un; sudo id -un; pwd").run().ok(), "derek\nroot\n/home/derek");
    assert_eq!(client.ssh("derek", &host, "exit 7").run().code, Some(7));
    // A terminal, where one is asked for.
    let terminal = client.call("ssh").args(["-tt", &format!("derek@{}", host.ip()), "tty"]).run().ok();
    assert!(terminal.starts_with("/dev/pts/"), "{terminal}");

    let content: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let (there, back) = (client.path("there"), client.path("back"));
    fs::write(&there, &content).unwrap();
    let remote = format!("derek@{}:copied", host.ip());
    client.call("scp").args([&*there.to_string_lossy(), &remote]).run().ok();
    client.call("scp").args([&*remote, &back.to_string_lossy()]).run().ok();
    assert_eq!(fs::read(&back).unwrap(), content);

    assert_nothing_is_left(&host, at_first);
    assert_eq!(host.listening_ports(), [22], "with LOCAL there is no port but sshd's");
    host.stop();
    host.assert_exited(0);
    assert_eq!(host.alarms(), []);
}

#[test]
fn a_port_is_forwarded() {
    let client = SshClient::new();
    let host = host_of(&client, Host::options());
    host.load_busybox();
    let at_first = descriptors(&host);
    host.run_nested(
        "web",
        &["-p", "127.0.0.1:8000:8000"],
        "echo up; while :; do echo hello from inside | nc -l -p 8000; done",
    );
    let socket = client.path("forwarded");
    let forward = format!("{}:127.0.0.1:8000", socket.display());
    let session =
        client.session("derek", &host, &["-N", "-o", "ExitOnForwardFailure=yes", "-L", &forward], "");
    until_equal("what listens inside to answer", 20, "hello from inside\n", || {
        let mut answer = String::new();
        let _ = UnixStream::connect(&socket).and_then(|mut it| it.read_to_string(&mut answer));
        answer
    });
    session.leave();
    host.docker(["rm", "-f", "web"]).ok();
    assert_nothing_is_left(&host, at_first);
}

#[test]
fn the_docker_commands_own_ssh_transport_reaches_the_engine() {
    let client = SshClient::new();
    let host = host_of(&client, Host::options().env("LOCAL", "true"));
    host.load_busybox();
    let at_first = descriptors(&host);
    let path = format!("{}:{}", client.folder_with_ssh().display(), std::env::var("PATH").unwrap());
    let config = client.path("docker").display().to_string();
    let over_ssh = |words: &[&str]| {
        let call = Call::new("docker").env("PATH", &path).env("DOCKER_CONFIG", &config);
        let call = call.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        call.args(["-H", &format!("ssh://derek@{}", host.ip())]).args(words).run()
    };
    assert_eq!(over_ssh(&["run", "--rm", "busybox", "echo", "over ssh"]).ok(), "over ssh");
    over_ssh(&["run", "-d", "--name", "worker", "busybox", "sleep", "1000"]).ok();
    assert_eq!(over_ssh(&["ps", "--format", "{{.Names}}"]).ok(), "worker");
    over_ssh(&["rm", "-f", "worker"]).ok();
    assert_nothing_is_left(&host, at_first);
}

#[test]
fn only_keys_open_the_door_and_roots_only_when_it_was_added() {
    let client = SshClient::new();
    let host = host_of(&client, Host::options());
    let refused = |user: &str, options: &[&str]| {
        let call =
            client.call("ssh").args(options).args(["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1"]);
        call.arg(format!("{user}@{}", host.ip()))
            .arg("id")
            .run()
            .fails()
            .says(&["Permission denied (publickey)."])
    };
    // The words in parentheses are all that the server offers.
    let _ = refused("derek", &["-o", "PreferredAuthentications=password,keyboard-interactive"]);
    let _ = refused("root", &["-o", "PreferredAuthentications=password,keyboard-interactive"]);
    let _ = refused("root", &[]);
    let _ = refused("nobody", &[]);
    host.exec(["adduserkey", "root", &client.key()]).ok();
    assert_eq!(client.ssh("root", &host, "id -u").run().ok(), "0");
    // Refused so often, and still heard.
    for _ in 0..8 {
        let _ = refused("stranger", &[]);
    }
    assert_eq!(client.ssh("derek", &host, "id -un").run().ok(), "derek");
    let lines = host.log_lines();
    let said = |text: &str| lines.iter().any(|line| line.service == "sshd" && line.message.contains(text));
    assert!(said("Server listening on 0.0.0.0 port 22"), "{}", host.logs());
    assert!(said("Accepted publickey for derek"), "{}", host.logs());
    assert!(said("Invalid user stranger"), "{}", host.logs());
}

/// What a client is shown.
#[track_caller]
fn host_keys(host: &Host) -> BTreeSet<String> {
    let ip = host.ip();
    let scan = Call::new("ssh-keyscan").args(["-T", "20", &ip]).run().ok();
    scan.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap().1.to_owned())
        .collect()
}

#[test]
fn host_keys_are_the_hosts_own_and_stay() {
    let hosts = [Host::options().ssh().start(), Host::options().ssh().start()];
    let keys = hosts.each_ref().map(host_keys);
    assert_eq!(keys[0].len(), 2, "{keys:?}");
    assert!(keys[0].is_disjoint(&keys[1]), "{keys:?}");
    let [host, _] = &hosts;
    for _ in 0..2 {
        host.stop();
        host.start();
        assert_eq!(host_keys(host), keys[0]);
    }
    // One that is lost is made anew, and the other stays.
    host.shell("rm /etc/ssh/ssh_host_ecdsa_key*").ok();
    host.stop();
    host.start();
    let after = host_keys(host);
    assert_eq!(after.intersection(&keys[0]).count(), 1, "{after:?}");
    let said: Vec<String> = host
        .log_lines()
        .into_iter()
        .filter_map(|line| Some(line.message.strip_prefix("host keys: ")?.split(',').next()?.to_owned()))
        .collect();
    assert_eq!(said, ["made", "kept", "kept", "made"]);
    let modes = host.shell("stat -c '%a %U %n' /etc/ssh/ssh_host_*; ls -a /etc/ssh | grep dind").stdout;
    let ecdsa = "600 root /etc/ssh/ssh_host_ecdsa_key\n644 root /etc/ssh/ssh_host_ecdsa_key.pub\n";
    assert_eq!(modes, format!("{ecdsa}{}", ecdsa.replace("ecdsa", "ed25519")));
}

/// A key that is not usable ends the start with its name, and stays.
#[test]
fn a_broken_host_key_is_said_and_kept() {
    let host = Host::options().ssh().file("/etc/ssh/ssh_host_ed25519_key", 0o600, "broken\n").create();
    let _ = host.refuses(69, &["/etc/ssh/ssh_host_ed25519_key", "remove it"]);
}

/// Every layer is looked through: what a later layer removes is in the image all the same.
#[test]
fn no_layer_of_the_image_has_a_host_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.tar");
    docker(["save", "-o", &file.to_string_lossy(), ssh_image()]).ok();
    let mut image = tar::Archive::new(fs::File::open(&file).unwrap());
    let (mut layers, mut configs, mut keys) = (0, 0, Vec::new());
    for entry in image.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut begin = [0; 512];
        let is_tar = entry.read_exact(&mut begin).is_ok() && &begin[257..262] == b"ustar";
        if !is_tar {
            continue;
        }
        layers += 1;
        let mut layer = tar::Archive::new(begin.chain(entry));
        for file in layer.entries().unwrap() {
            let file = file.unwrap();
            let path = file.path().unwrap().to_string_lossy().into_owned();
            configs += usize::from(path == "etc/dind/sshd_config");
            if path.contains("ssh_host_") {
                keys.push(path);
            }
        }
    }
    assert!(layers > 2 && configs > 0, "{layers} layers, {configs} configurations");
    assert_eq!(keys, [""; 0]);
}

#[test]
fn a_killed_sshd_comes_back_and_spoils_nothing() {
    let client = SshClient::new();
    let host = host_of(&client, Host::options());
    host.load_busybox();
    let engine = (host.pid_of("dockerd"), host.pid_of("containerd"));
    let session = client.session("derek", &host, &[], "sleep 1000");
    host.kill_service("sshd");
    host.wait();
    assert_eq!(host.service("sshd")["restarts"], 1);
    assert_eq!((host.pid_of("dockerd"), host.pid_of("containerd")), engine);
    assert!(session.is_open(), "a session does not end with the listener");
    assert_eq!(client.ssh("derek", &host, "docker run --rm busybox echo hi").run().ok(), "hi");
    session.leave();
    host.stop();
    host.assert_exited(0);
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
}

/// Many deaths of a way in end no containers.
#[test]
fn a_host_whose_sshd_dies_again_and_again_keeps_its_containers() {
    let host = Host::options().ssh().start();
    host.load_busybox();
    host.run_nested("worker", &[], POLITE);
    host.shell("mv /etc/dind/sshd_config /etc/dind/away; echo nonsense >/etc/dind/sshd_config").ok();
    host.shell("kill -9 $(pgrep -x sshd)").ok();
    until("six deaths", 60, || (host.service("sshd")["restarts"].as_u64() >= Some(6)).then_some(()));
    assert_eq!(host.status()["phase"], "degraded");
    let health = host.exec(["dind-init", "health"]).exits(70);
    assert!(health.stderr.contains("sshd"), "{health}");
    host.shell("mv /etc/dind/away /etc/dind/sshd_config").ok();
    host.wait();
    assert_eq!(host.nested_logs("worker").ok(), "up");
    host.stop();
    host.assert_exited(0);
}

/// One that never worked ends the start, with its own words.
#[test]
fn an_sshd_that_cannot_start_ends_the_host_with_its_last_lines() {
    let host =
        Host::options().ssh().file("/etc/dind/sshd_config.d/mine.conf", 0o644, "Nonsense yes\n").create();
    let _ = host.refuses(70, &["sshd failed for good", "Bad configuration option: Nonsense"]);
}

#[test]
fn a_port_that_is_taken_is_named_and_another_can_be_chosen() {
    let client = SshClient::new();
    let first = host_of(&client, Host::options());
    let network = format!("container:{}", first.name());
    // In the same network, with everything else its own.
    let beside = || Host::options().ssh().run(["--network", &network]).env("LOCAL", "true");
    let _ = beside().refused(69, &["port 22 is taken", "sshd_config.d"]);
    let host = beside().file("/etc/dind/sshd_config.d/port.conf", 0o644, "Port 2222\n").start();
    host.exec(["adduserkey", "anna", &client.key()]).ok();
    let target = format!("anna@{}", first.ip());
    assert_eq!(client.call("ssh").args(["-p", "2222", &target, "id -un"]).run().ok(), "anna");
}

/// Until its share of the time is over, a session is not cut short; then it is, and the stop is a clean one all the same.
#[test]
fn a_stop_gives_an_open_session_its_share_of_the_time_and_no_more() {
    for (options, command) in
        [(&["-tt"][..], "while :; do sleep 0.1; done"), (&[], "sleep 1000"), (&["-N"], "")]
    {
        let client = SshClient::new();
        let host = host_of(&client, Host::options().env("DIND_STOP_TIMEOUT", "20"));
        host.load_busybox();
        host.run_nested("worker", &[], POLITE);
        let session = client.session("derek", &host, options, command);
        host.signal("TERM");
        until("the listener to be gone", 20, || (!host.listening_ports().contains(&22)).then_some(()));
        until("the session to be noticed", 20, || {
            host.logs().contains("sshd has sessions: 1; they have").then_some(())
        });
        assert!(session.is_open(), "{options:?}: cut short\n{}", host.logs());
        assert_eq!(host.nested_logs("worker").ok(), "up", "the engine still works for it");
        assert_eq!(host.ends(), 0, "{}", host.logs());
        until("the session's client to notice", 20, || (!session.is_open()).then_some(()));
        let order = [
            "stopping, because",
            "sessions: 1; they have",
            "they are ended",
            "Daemon shutdown complete",
            "stopped",
        ];
        assert_said_in_order(&host, &order);
        host.start();
        assert_eq!(host.status()["last_stop"], "clean");
        assert!(host.nested_logs("worker").ok().ends_with("last words"));
    }
}

/// Asserts that these texts are in the host's log, one after the other.
#[track_caller]
fn assert_said_in_order(host: &Host, texts: &[&str]) {
    let lines: Vec<Line> = host.log_lines();
    let mut lines = lines.iter();
    for text in texts {
        assert!(lines.any(|line| line.message.contains(text)), "{text:?} does not follow\n{}", host.logs());
    }
}

#[test]
fn a_session_that_ends_by_itself_lets_the_stop_go_on() {
    let client = SshClient::new();
    let host = host_of(&client, Host::options().env("DIND_STOP_TIMEOUT", "600"));
    // It would have minutes.
    let session =
        client.session("derek", &host, &[], "while [ ! -e done ]; do sleep 0.1; done; echo all done");
    host.signal("TERM");
    until("the session to be noticed", 20, || {
        host.logs().contains("sshd has sessions: 1; they have").then_some(())
    });
    host.shell("touch /home/derek/done").ok();
    assert_eq!(host.ends(), 0, "{}", host.logs());
    until_equal("its last words", 20, "all done\n", || session.output());
    assert!(!host.logs().contains("they are ended"), "{}", host.logs());
}

#[test]
fn a_second_signal_hurries_sessions_too() {
    let client = SshClient::new();
    let host = host_of(&client, Host::options().env("DIND_STOP_TIMEOUT", "600"));
    let _session = client.session("derek", &host, &[], "sleep 1000");
    host.signal("TERM");
    until("the session to be noticed", 20, || {
        host.logs().contains("sshd has sessions: 1; they have").then_some(())
    });
    host.signal("INT");
    assert_eq!(host.ends(), 0, "{}", host.logs());
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
}

/// Whoever has only connected has no session, and holds nothing up.
#[test]
fn a_connection_without_a_login_is_not_waited_for() {
    let host = Host::options().ssh().env("DIND_STOP_TIMEOUT", "600").start();
    let mut connection = TcpStream::connect((host.ip(), 22)).unwrap();
    let mut banner = [0; 4];
    connection.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"SSH-");
    host.signal("TERM");
    assert_eq!(host.ends(), 0, "{}", host.logs());
    assert!(!host.logs().contains("sessions"), "{}", host.logs());
}

#[test]
fn sessions_are_found_under_another_init_too() {
    let client = SshClient::new();
    let host = host_of(&client, Host::options().run(["--init"]).env("DIND_STOP_TIMEOUT", "4"));
    host.load_busybox();
    host.run_nested("stubborn", &["--stop-timeout", "60"], STUBBORN);
    let _session = client.session("derek", &host, &[], "sleep 1000");
    host.stop_within(4);
    host.assert_exited(0);
    assert!(host.logs().contains("sessions: 1; they are ended"), "{}", host.logs());
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
}
