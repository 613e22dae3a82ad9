//! `adduserkey`: who may log in, with the keys that ssh-keygen makes.

use std::fs;
use std::thread;

use dind_tests::{Call, Ended, Host, SshClient, docker, until};

/// A host with sshd.
#[track_caller]
fn host() -> Host {
    Host::options().ssh().start()
}

/// `docker exec HOST adduserkey WORDS`.
#[track_caller]
fn adduserkey(host: &Host, words: &[&str]) -> Ended {
    host.exec([&["adduserkey"], words].concat())
}

/// The same, with this on standard input.
#[track_caller]
fn adduserkey_reading(host: &Host, words: &[&str], input: &str) -> Ended {
    Call::new("docker").args(["exec", "-i", host.name(), "adduserkey"]).args(words).stdin(input).run()
}

/// The lines of the user's file of keys.
#[track_caller]
fn lines(host: &Host, user: &str) -> Vec<String> {
    let file = host.shell(&format!("cat /etc/ssh/authorized_keys.d/{user} 2>/dev/null; true")).ok();
    file.lines().map(str::to_owned).collect()
}

/// Everything that adduserkey may change.
#[track_caller]
fn everything(host: &Host) -> String {
    let line = "sha256sum /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/subuid; ls -lA --time-style=full-iso \
                /etc/ssh /etc/ssh/authorized_keys.d /home; cat /etc/ssh/authorized_keys.d/*";
    host.shell(line).stdout
}

#[test]
fn ten_calls_at_the_same_moment_add_one_line() {
    let client = SshClient::new();
    let host = host();
    let key = client.key();
    let at_once = |calls: &(dyn Fn(usize) -> [String; 2] + Sync)| {
        thread::scope(|scope| {
            let (calls, host) = (&calls, &host);
            let all: Vec<_> = (0..10)
                .map(|call| {
                    scope.spawn(move || adduserkey(host, &calls(call).each_ref().map(String::as_str)).ok())
                })
                .collect();
            all.into_iter().map(|call| call.join().unwrap()).collect::<Vec<String>>()
        })
    };
    let said = at_once(&|_| ["derek".to_owned(), key.clone()]);
    assert_eq!(lines(&host, "derek"), [key.as_str()]);
    assert_eq!(said.iter().filter(|said| said.starts_with("key added")).count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|said| said.starts_with("key was there already")).count(), 9, "{said:?}");
    // Ten keys of one user are ten lines, and ten users are ten accounts.
    let keys: Vec<String> =
        (0..10).map(|n| client.make_key(&format!("key-{n}"), &["-t", "ed25519"])).collect();
    at_once(&|call| ["derek".to_owned(), keys[call].clone()]);
    let mut expected = [std::slice::from_ref(&key), &keys[..]].concat();
    expected.sort();
    let mut found = lines(&host, "derek");
    found.sort();
    assert_eq!(found, expected);
    at_once(&|call| [format!("user-{call}"), key.clone()]);
    for call in 0..10 {
        assert_eq!(
            client.ssh(&format!("user-{call}"), &host, "id -Gn").run().ok(),
            format!("user-{call} docker")
        );
    }
    assert_eq!(host.shell("cut -d: -f3 /etc/passwd | sort | uniq -d").ok(), "");
    let modes = host
        .shell("stat -c '%a %U:%G' /etc/ssh/authorized_keys.d/derek; ls -A /etc/ssh/authorized_keys.d")
        .ok();
    assert!(modes.starts_with("644 root:root\n") && !modes.contains("unfinished"), "{modes}");
}

#[test]
fn keys_of_every_type_that_ssh_keygen_makes_open_the_door() {
    let client = SshClient::new();
    let host = host();
    for (name, options) in [
        ("ed25519", &["-t", "ed25519"][..]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("p521", &["-t", "ecdsa", "-b", "521"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
        ("rsa-more", &["-t", "rsa", "-b", "3072"]),
    ] {
        let key = client.make_key(name, options);
        let said = adduserkey(&host, &["derek", &key]).ok();
        let file = client.path(name).display().to_string();
        let shown = Call::new("ssh-keygen").args(["-l", "-f", &file]).run().ok();
        let fingerprint = shown.split(' ').nth(1).unwrap();
        assert!(said.contains(fingerprint), "{said} and not {fingerprint}");
        let login = client.call("ssh").args(["-i", &file, "-o", "IdentitiesOnly=yes"]);
        // Only this key is known so far that the client has, but for its own, which was not added.
        assert_eq!(login.arg(format!("derek@{}", host.ip())).arg("id -un").run().ok(), "derek", "{name}");
        let listed = adduserkey(&host, &["--list", "derek"]).ok();
        assert!(
            listed.starts_with(&format!("derek {fingerprint} ")) && listed.ends_with("derek at work"),
            "{listed}"
        );
        adduserkey(&host, &["--remove", "derek", fingerprint]).ok();
        assert_eq!(lines(&host, "derek"), [""; 0]);
    }
}

#[test]
fn bad_input_changes_nothing() {
    let client = SshClient::new();
    let host = host();
    let key = client.key();
    adduserkey(&host, &["anna", &key]).ok();
    let private = |name: &str| fs::read_to_string(client.path(name)).unwrap();
    client.make_key("pem", &["-t", "rsa", "-m", "PEM"]);
    client.make_key("weak", &["-t", "rsa", "-b", "1024"]);
    client.make_key("ca", &["-t", "ed25519"]);
    let files = [client.path("ca"), client.path("key.pub")].map(|file| file.display().to_string());
    Call::new("ssh-keygen").args(["-q", "-s", &files[0], "-I", "derek", &files[1]]).run().ok();
    let certificate = client.public("key-cert");
    let (secret, pem) = (private("key"), private("pem"));
    let secret_line = secret.lines().nth(2).unwrap();
    let before = everything(&host);
    let (start, _) = key.split_at(50);
    let rubbish = "0123456789abcdef".repeat(1000);
    let dss = "ssh-dss AAAAB3NzaC1kc3MAAAADAQAB";
    for (words, named) in [
        (&["", &key][..], "is empty"),
        (&[&"a".repeat(33), &key], "longer than 32"),
        (&["-rf", &key], "dash"),
        (&["--", &key], ""),
        (&["a/b", &key], "'/'"),
        (&["../etc", &key], "begin"),
        (&["a\nb", &key], r"'\n'"),
        (&["Derek", &key], "lower-case"),
        (&["sshd", &key], "account of the system"),
        (&["daemon", &key], "account of the system"),
        (&["nobody", &key], "account of the system"),
        (&["docker", &key], "group of the system"),
        (&["derek", ""], "empty"),
        (&["derek", start], "cut off"),
        (&["derek", &key[..52]], "truncated"),
        (&["derek", "ssh-ed25519"], "missing"),
        (&["derek", &rubbish], "16000 characters"),
        (&["derek", &rubbish[..4000]], "no public key"),
        (&["derek", &format!("ssh-ed25519 {}", &rubbish[..4000])], "truncated or damaged"),
        (&["derek", "ssh-ed448 AAAA"], "ssh-ed448"),
        (&["derek", dss], "ssh-dss"),
        (&["derek", &client.public("weak")], "1024 bits"),
        (&["derek", &certificate], "certificate"),
        (&["derek", &secret], "private key"),
        (&["derek", secret_line], ""),
        (&["derek", &pem], "private key"),
        (&["derek", &format!("{key}\n{key}")], "more than one line"),
        (&["derek", &format!("no-such-option {key}")], "no-such-option"),
        (&["derek", &format!("command {key}")], "needs a value"),
        (&["derek", "ssh-ed25519", "AAAA"], "several words"),
        (&["derek"], "key is missing"),
        (&[], "missing"),
        (&["--remove", "anna"], "key is missing"),
        (&["--remove", "anna", &client.public("ca")], "no such key"),
        (&["--remove", "derek", &key], "no such key"),
        (&["--list", "no/name"], "'/'"),
    ] {
        let ended = adduserkey(&host, words).exits(64).says(&["dind-init: ", named, "\n  help: "]);
        assert!(ended.stdout.is_empty() && ended.stderr.len() < 400, "{ended}");
        assert!(!ended.stderr.contains(secret_line), "{ended}");
        assert_eq!(everything(&host), before, "{ended}");
    }
    // From standard input: one bad line among good ones, and the file of a private key as it is.
    for (input, named) in [
        (format!("{key}\n\nssh-ed25519 AAAA\n"), "line 3: "),
        (secret.clone(), "private key"),
        (pem, "private key"),
        ("\n# nothing\n".to_owned(), "no key on standard input"),
        ("x".repeat(2_000_000), "more than 1048576"),
    ] {
        let ended = adduserkey_reading(&host, &["derek", "-"], &input).exits(64).says(&[named, "\n  help: "]);
        assert!(!ended.stderr.contains(secret_line), "{ended}");
        assert_eq!(everything(&host), before, "{ended}");
    }
}

#[test]
fn keys_come_from_standard_input_and_go_again() {
    let client = SshClient::new();
    let host = host();
    let key = client.key();
    let other = client.make_key("other", &["-t", "ecdsa"]);
    let input = format!("# those of derek\n\n{key}\r\n  {other}\n{key}");
    let said = adduserkey_reading(&host, &["derek", "-"], &input).ok();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert_eq!(lines(&host, "derek"), [&*key, &other]);
    // The same key with options and another comment takes the old one's place.
    let (kind_and_base64, _) = key.rsplit_once(" derek at work").unwrap();
    let forced =
        format!("restrict,command=\"echo 'forced: '$SSH_ORIGINAL_COMMAND\" {kind_and_base64} at home");
    adduserkey(&host, &["derek", &forced]).ok();
    assert_eq!(lines(&host, "derek"), [&*forced, &other]);
    assert_eq!(client.ssh("derek", &host, "id").run().ok(), "forced: id");
    adduserkey(&host, &["anna", &other]).ok();
    let listed = adduserkey(&host, &["--list"]).ok();
    let words: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(words, ["anna", "derek", "derek"], "{listed}");
    assert!(listed.contains("restrict,command="), "{listed}");
    adduserkey_reading(&host, &["--remove", "derek", "-"], &format!("{key}\n{other}\n")).ok();
    assert_eq!(adduserkey(&host, &["--list", "derek"]).ok(), "");
    let _ = client.ssh("derek", &host, "id").run().fails().says(&["Permission denied"]);
    // The account and its files stay, and a key makes it one to log in with again.
    adduserkey(&host, &["derek", &key]).ok();
    assert_eq!(client.ssh("derek", &host, "id -un").run().ok(), "derek");
    // All is there after a stop and a start.
    host.stop();
    host.start();
    assert_eq!(client.ssh("derek", &host, "id -un").run().ok(), "derek");
}

#[test]
fn it_works_without_an_environment_and_while_the_host_starts() {
    let client = SshClient::new();
    let host = Host::options().ssh().create();
    docker(["start", host.name()]).ok();
    docker(["exec", "-d", host.name(), "/usr/bin/env", "-i", "/usr/bin/adduserkey", "derek", &client.key()])
        .ok();
    docker(["exec", "-d", host.name(), "adduserkey", "anna", &client.key()]).ok();
    host.wait();
    for user in ["derek", "anna"] {
        until("the key to be there", 20, || (!lines(&host, user).is_empty()).then_some(()));
        assert_eq!(client.ssh(user, &host, "sudo id -un").run().ok(), "root");
    }
    // By its other name, too, and from within.
    host.exec(["env", "-i", "/usr/sbin/dind-init", "adduserkey", "eve", &client.key()]).ok();
    assert_eq!(client.ssh("eve", &host, "sudo adduserkey --list | wc -l").run().ok(), "3");
    let _ = client.ssh("eve", &host, "adduserkey eve x").run().exits(64);
    let _ = client
        .ssh("eve", &host, &format!("adduserkey mallory '{}'", client.key()))
        .run()
        .exits(64)
        .says(&["only root", "sudo adduserkey"]);
}

#[test]
fn users_that_are_there_already_become_users_of_docker() {
    let client = SshClient::new();
    let host = host();
    host.shell("useradd -m plain; useradd -m -p '*' open; groupadd mates; useradd -m -p '!$y$x' shut").ok();
    for user in ["plain", "open", "mates"] {
        adduserkey(&host, &[user, &client.key()]).ok();
        assert_eq!(client.ssh(user, &host, "id -un; docker ps -q").run().ok(), user);
        // Once more changes nothing.
        let before = everything(&host);
        adduserkey(&host, &[user, &client.key()]).ok();
        assert_eq!(before.lines().next(), everything(&host).lines().next());
    }
    let _ =
        adduserkey(&host, &["shut", &client.key()]).exits(64).says(&["shut is locked", "usermod -U shut"]);
    assert_eq!(
        host.shell("cut -d: -f1,2 /etc/shadow | grep -E '^(plain|mates|root):'").ok(),
        "root:*\nplain:*\nmates:*"
    );
}

pub(crate) fn an_image_without_sshd_names_the_one_to_use(host: &Host) {
    let client = SshClient::new();
    let _ = adduserkey(host, &["derek", &client.key()]).exits(69).says(&["no sshd", "dind-debian-ssh"]);
    assert_eq!(host.shell("id derek").code, Some(1));
    assert_eq!(host.listening_ports(), [2376]);
    let help = adduserkey(host, &["--help"]).ok();
    for text in ["adduserkey USER KEY", "--remove USER KEY", "--list [USER]", "nothing is changed"] {
        assert!(help.contains(text), "{help}");
    }
}

/// useradd killed in the middle leaves accounts without a home, a group or a line in shadow, and locks that nobody holds.
#[test]
fn calls_that_were_cut_off_are_finished_by_the_next() {
    let client = SshClient::new();
    let host = Host::options().ssh().start();
    let kills = "for ms in $(seq 2 2 60); do timeout -s KILL $(printf 0.%03d $ms) adduserkey u$ms \"$KEY\"; done; true";
    let with_key = |line: &str| format!("KEY='{}'; {line}", client.key());
    host.shell(&with_key(kills)).ok();
    // Whoever has this number now is no useradd.
    host.shell("printf '%s\\0' $(pidof dockerd) >/etc/group.lock").ok();
    let again = "for ms in $(seq 2 2 60); do user=u$ms; adduserkey $user \"$KEY\" && [ -f /home/$user/.bashrc ] &&
        getent shadow $user && getent group $user && sudo -u $user sudo -n true || exit 9; done; pwck -qr; grpck -qr";
    host.shell(&with_key(again)).ok();
    assert_eq!(host.shell("ls /etc/dind | grep -c making; true").ok(), "0");
    assert_eq!(host.exec(["adduserkey", "--list"]).ok().lines().count(), 30);
    let target = format!("u30@{}", host.ip());
    assert_eq!(client.call("ssh").args([&target, "sudo id -u"]).run().ok(), "0");
}

#[test]
fn keys_of_a_deleted_user_stay_away() {
    let client = SshClient::new();
    let host = Host::options().ssh().start();
    let other = SshClient::new();
    host.exec(["adduserkey", "anna", &client.key()]).ok();
    host.shell("userdel -r anna 2>/dev/null").ok();
    host.exec(["adduserkey", "anna", &other.key()]).ok();
    assert_eq!(host.exec(["adduserkey", "--list", "anna"]).ok().lines().count(), 1);
}
