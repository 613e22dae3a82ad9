//! Hosts of sealed appliances: their images are there without being unpacked, and nobody runs an empty layer in their place.

use dind_tests::{Baked, Baking, BuiltImage, Host, RUN_OPTIONS, Volume, docker, local_image, until};

/// Keeps a line in a volume for each start, and answers to `sh`.
const WEB: &str = "
    init: true
    network_mode: none
    command: [sh, -c, 'echo $$WHO >>/data/starts; cat /data/starts; exec sleep 1000']
    environment: {WHO: \"${WHO:-nobody}\"}
    volumes: [\"data:/data\"]
volumes: {data: {}}
";

fn compose(image: &str) -> String {
    format!("services:\n  web:\n    image: {image}{WEB}")
}

/// Bakes an application of one service.
#[track_caller]
fn baked(image: &BuiltImage) -> (Baking, Baked) {
    let baking = Baking::new();
    baking.write("docker-compose.yml", compose(image.name()));
    let baked = baking.bake(&[]);
    (baking, baked)
}

/// How many loop devices of this machine have a layer of this image in them, but for the lowest, which other tests' images share.
fn loop_devices(baked: &Baked) -> usize {
    let label = baked.inspect(r#"{{index .Config.Labels "dind.sealed"}}"#);
    let images: serde_json::Value = serde_json::from_str(&label).unwrap();
    let layers: Vec<String> = images[0]["layers"]
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
        .map(|it| it.as_str().unwrap()[7..].to_owned())
        .collect();
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    let files =
        devices.filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.filter(|file| layers.iter().any(|layer| file.contains(layer))).count()
}

#[test]
fn its_images_are_there_without_a_network_and_like_any_other() {
    let web = local_image(
        "RUN mkdir /d && echo a >/d/a && echo b >/d/b\nRUN rm /d/a\nRUN rm -r /d && mkdir /d && echo c >/d/c",
    );
    let (_baking, baked) = baked(&web);
    let volume = Volume::new();
    let options = || baked.options().volume(&volume, "/var/lib/docker").run(["--network", "none"]);
    let host = options().env("WHO", "first").start();
    host.wait_for_line("web-1", "first");
    let name = web.name();
    // As it was unpacked where it was made: whiteouts and opaque folders, too.
    assert_eq!(host.docker(["run", "--rm", "--network", "none", name, "ls", "/d"]).ok(), "c");
    // What is saved of it are the layers' own bytes: each is called by its digest.
    let every = "cd /saved/blobs/sha256 && for f in *; do [ $(sha256sum <$f | cut -c1-64) = $f ]; done";
    host.shell(&format!("mkdir /saved && docker save {name} | tar -x -C /saved && {every}")).ok();
    // Built on, committed, removed.
    host.build("kid", &format!("FROM {name}\nRUN echo kid >/kid\n"));
    assert_eq!(host.docker(["run", "--rm", "--network", "none", "kid", "cat", "/kid"]).ok(), "kid");
    host.docker(["run", "--name", "made", "--network", "none", name, "touch", "/new"]).ok();
    host.docker(["commit", "made", "committed"]).ok();
    host.docker(["rm", "made"]).ok();
    host.docker(["rmi", "-f", name]).ok();
    assert!(host.exec(["dind-init", "verify"]).ok().contains("all whole"));
    let devices = loop_devices(&baked);
    assert!(devices > 0);
    // What was removed is there again at the next start, after a kill, too.
    docker(["kill", host.name()]).ok();
    host.start();
    host.docker(["image", "inspect", name]).ok();
    assert_eq!(host.docker(["run", "--rm", "--network", "none", "committed", "ls", "/new"]).ok(), "/new");
    assert!(host.exec(["dind-init", "verify"]).ok().contains("all whole"));
    host.stop();
    host.assert_exited(0);
    until("its loop devices to be given back", 20, || (loop_devices(&baked) == 0).then_some(()));
    drop(host);
    // Nobody else runs what is not there.
    let plain = Host::options().volume(&volume, "/var/lib/docker");
    plain.refused(69, &["belongs to a sealed appliance", &format!("{name}:latest")]);
    let script = format!(
        "dockerd >/dev/null 2>&1 & until docker version >/dev/null 2>&1; do sleep 0.1; done
        docker image inspect {name} >/dev/null && docker run --rm --network none {name} true"
    );
    let bare = Host::options()
        .volume(&volume, "/var/lib/docker")
        .run(["--entrypoint", "sh"])
        .arguments(["-c", &script]);
    bare.create().run_to_its_end().fails().says(&["no such file or directory"]);
    // And the appliance goes on with it.
    let host = options().env("WHO", "last").start();
    host.wait_for_line("web-1", "last");
    assert_eq!(host.docker(["run", "--rm", "--network", "none", "kid", "cat", "/kid"]).ok(), "kid");
}

#[test]
fn a_new_version_replaces_what_was_baked_and_keeps_what_was_made() {
    let first = local_image("RUN echo one >/version\nVOLUME /anonymous");
    let second = local_image("RUN echo two >/version\nVOLUME /anonymous");
    let baking = Baking::new();
    // Both call it by the same name.
    let name = format!("{}-shop", first.name());
    let mut made = Vec::new();
    for image in [&first, &second] {
        docker(["tag", image.name(), &name]).ok();
        baking.write("docker-compose.yml", compose(&name));
        made.push(baking.bake(&[]));
    }
    docker(["rmi", &name]).ok();
    let volume = Volume::new();
    let run = |baked: &Baked, who: &str| {
        let host = baked.options().volume(&volume, "/var/lib/docker").env("WHO", who).start();
        host.wait_for_line("web-1", who);
        host
    };
    let host = run(&made[0], "one");
    host.docker(["exec", "compose-web-1", "sh", "-c", "echo kept >/anonymous/file"]).ok();
    host.build("users", &format!("FROM {name}\nRUN echo users >/users\n"));
    host.load_busybox();
    host.docker(["run", "-d", "--name", "stands", "--network", "none", &name, "sleep", "1000"]).ok();
    host.stop();
    drop(host);
    // A start that is refused for its application has replaced nothing.
    let records = || -> Vec<String> {
        let of_images =
            |line: &&str| ["./dind.store", "./overlay2", "./image"].iter().any(|it| line.contains(it));
        volume.listing().lines().filter(of_images).map(str::to_owned).collect()
    };
    let before = records();
    made[1]
        .options()
        .volume(&volume, "/var/lib/docker")
        .env("COMPOSE_PROJECT_NAME", "Bad Name")
        .refused(64, &["invalid project name"]);
    assert_eq!(records(), before);
    let host = run(&made[1], "two");
    assert_eq!(host.docker(["exec", "compose-web-1", "cat", "/version"]).ok(), "two");
    assert_eq!(host.docker(["exec", "compose-web-1", "cat", "/data/starts"]).ok(), "one\ntwo");
    assert_eq!(host.docker(["exec", "compose-web-1", "cat", "/anonymous/file"]).ok(), "kept");
    let logs = host.logs();
    for text in ["the container stands (", "the image users:latest (", "is set aside"] {
        assert!(logs.contains(text), "{text}\n{logs}");
    }
    host.docker(["image", "inspect", "users"]).fails().says(&["No such image"]);
    // What the user brought is the user's, and what cannot run does not.
    host.docker(["run", "--rm", "--network", "none", "busybox", "true"]).ok();
    host.docker(["start", "stands"]).fails();
    host.docker(["rm", "stands"]).ok();
    assert!(host.exec(["dind-init", "verify"]).ok().contains("all whole"));
    host.stop();
    drop(host);
    // Back again, as far as volumes go.
    let host = run(&made[0], "back");
    assert_eq!(host.docker(["exec", "compose-web-1", "cat", "/data/starts"]).ok(), "one\ntwo\nback");
}

#[test]
fn a_store_that_is_damaged_is_refused() {
    let web = local_image("RUN echo one >/version");
    let (_baking, baked) = baked(&web);
    let store = "/usr/lib/dind/store";
    let damaged = |line: &str| BuiltImage::new(&format!("FROM {}\nRUN {line}\n", baked.tag()), &[]);
    for (line, said) in [
        (format!("for f in {store}/layers/*/files.erofs; do truncate -s -1 $f; done"), "is cut short"),
        (
            format!(
                "for f in {store}/layers/*/files.erofs; do printf x | dd of=$f bs=1 seek=1100 conv=notrunc; done"
            ),
            "its superblock is not as it was written",
        ),
        (format!("sed -i 's/linux/Linux/' {store}/manifest.json"), "is not the one that was sealed in"),
        (format!("echo x >>$(ls {store}/images/*.json | head -n 1)"), "is damaged: it is not sha256:"),
        (format!("rm -r {store}"), "there is no /usr/lib/dind/store"),
        (format!("rm {store}/manifest.json"), "manifest.json: No such file"),
    ] {
        let image = damaged(&line);
        Host::options()
            .image(image.name(), "")
            .refused(69, &["the store of this appliance cannot be used", said]);
    }
    // What a start does not read, `verify` does.
    let image = damaged(&format!(
        "f=$(ls -S {store}/layers/*/files.erofs | head -n 1) && printf damaged | dd of=$f bs=1 seek=$(($(stat -c %s $f) - 9000)) conv=notrunc"
    ));
    let host = Host::options().image(image.name(), "").start();
    let verdict = host.exec(["dind-init", "verify"]);
    assert!(
        verdict.stdout.contains("is damaged: it is not sha256:") && verdict.stdout.contains(web.name()),
        "{verdict}"
    );
    verdict.exits(70);
}

/// Where links cannot serve, the images are loaded, which is said.
#[test]
fn what_cannot_be_linked_is_loaded() {
    let web =
        local_image("RUN mkdir /d && echo a >/d/a\nRUN rm /d/a && ln /bin/busybox /d/b && chown 5:6 /d");
    let (_baking, baked) = baked(&web);
    let without_devices: Vec<&str> = RUN_OPTIONS
        .iter()
        .copied()
        .filter(|option| !option.starts_with("--device-cgroup-rule") && !option.contains("rwm"))
        .collect();
    let containerd = r#"{"features": {"containerd-snapshotter": true}}"#;
    for (what, options, said) in [
        (
            "no loop device",
            baked.options().instead(&without_devices),
            "its 1 images are extracted and loaded",
        ),
        ("vfs", baked.options().env("DIND_STORAGE", "vfs"), "the engine cannot use the store as it is"),
        (
            "containerd's image store",
            baked.options().file("/etc/docker/daemon.json", 0o644, containerd),
            "the engine cannot use the store as it is",
        ),
    ] {
        let host = options.env("WHO", "loaded").run(["--network", "none"]).start();
        host.wait_for_line("web-1", "loaded");
        assert!(host.logs().contains(said), "{what}: {}", host.logs());
        let listed = host
            .docker([
                "run",
                "--rm",
                "--network",
                "none",
                web.name(),
                "sh",
                "-c",
                "ls -n / | grep ' d$'; ls /d",
            ])
            .ok();
        assert!(
            listed.contains(" 5 ") && listed.contains(" 6 ") && listed.ends_with("\nb"),
            "{what}: {listed}"
        );
        // It is there now, and not loaded again.
        let lines = host.lines_of("compose").len();
        host.stop();
        host.start();
        let again: Vec<String> = host.lines_of("compose").split_off(lines);
        assert!(!again.iter().any(|line| line.contains("is loaded from the store")), "{what}: {again:?}");
    }
}
