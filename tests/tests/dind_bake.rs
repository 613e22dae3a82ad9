//! `dind bake`: an application and its images in one image, and what cannot be sealed.

use std::os::unix::process::CommandExt;

use dind_tests::{Baking, Call, Dind, Host, Registry, docker, local_image, until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// One image of the engine's, one from an archive, one that is built.
#[test]
fn the_same_application_makes_the_same_image_and_versions_share_their_layers() {
    let web = local_image("RUN echo one >/version");
    let archived = local_image("RUN echo archived >/what");
    let baking = Baking::new();
    let file = baking.dind.home().join("image.tar");
    let other = format!("{}-archived", archived.name());
    docker(["tag", archived.name(), &other]).ok();
    docker(["save", "-o", &file.display().to_string(), &other]).ok();
    docker(["rmi", &other]).ok();
    let compose = |more: &str| {
        format!(
            "services:\n  web:\n    image: {}\n    environment: {{WHO: \"${{WHO:-nobody}}\"}}\n  two:\n    image: {other}\n  api:\n    build: api\n{more}",
            web.name()
        )
    };
    baking.write("docker-compose.yml", compose(""));
    // What it begins with is only on the endpoint.
    baking.write("api/Dockerfile", format!("FROM {}\nCOPY more /more\n", web.name()));
    baking.write("api/more", "more\n");
    let archive = ["--image-archive", "image.tar"];
    let first = baking.bake(&archive);
    let images: Vec<serde_json::Value> =
        serde_json::from_str(&baking.dind.run(["inspect", "--json", first.tag()]).ok()).unwrap();
    let sealed = images[0]["images"].as_array().unwrap();
    let names: Vec<&str> = sealed.iter().map(|image| image["names"][0].as_str().unwrap()).collect();
    for name in [web.name(), &other, "compose-api"] {
        assert!(names.contains(&format!("{name}:latest").as_str()), "{names:?}");
    }
    let by_name =
        |name: &str| sealed.iter().find(|image| image["names"][0] == format!("{name}:latest")).unwrap();
    assert_eq!(by_name(web.name())["id"], docker(["image", "inspect", "-f", "{{.Id}}", web.name()]).ok());
    assert_eq!(images[0]["store"], first.inspect(r#"{{index .Config.Labels "dind.store"}}"#));
    let text = baking.dind.run(["inspect", first.tag()]).ok();
    assert!(
        text.contains("SEALED IMAGE") && text.contains(&other) && text.contains("of no registry"),
        "{text}"
    );
    // Sealed again elsewhere, with nothing kept, of the same images: the same, byte for byte. (A build makes another image each time.)
    baking.write("docker-compose.yml", compose("").split("  api:").next().unwrap());
    let second = baking.bake(&archive);
    let elsewhere = Baking::new();
    elsewhere.write("docker-compose.yml", compose("").split("  api:").next().unwrap());
    let absolute = file.display().to_string();
    let third = elsewhere.bake(&["--image-archive", &absolute]);
    assert_eq!(second.inspect("{{.Id}}"), third.inspect("{{.Id}}"));
    // The first has one image more, and everything else in common with the second.
    let layers = |image: &dind_tests::Baked| -> Vec<String> {
        serde_json::from_str(&image.inspect("{{json .RootFS.Layers}}")).unwrap()
    };
    let (more, less) = (layers(&first), layers(&second));
    let missing: Vec<&String> = less.iter().filter(|layer| !more.contains(layer)).collect();
    assert_eq!(missing, [less.last().unwrap()], "only the layer with the application differs");
}

/// As skopeo, podman and BuildKit write them, with compressed layers and no list of docker save's.
#[test]
fn images_come_from_an_archive_in_the_layout_of_the_oci() {
    let image = local_image("RUN echo archived >/what");
    let baking = Baking::new();
    let file = |name: &str| baking.dind.home().join(name).display().to_string();
    let name = format!("{}-oci:1", image.name());
    docker(["save", "-o", &file("saved.tar"), image.name()]).ok();
    let from = format!("docker-archive:{}", file("saved.tar"));
    let skopeo = |to: &str| Call::new("skopeo").args(["--insecure-policy", "copy", &from, to]).run().ok();
    skopeo(&format!("oci-archive:{}:{name}", file("oci.tar")));
    skopeo(&format!("oci-archive:{}", file("unnamed.tar")));
    let service = format!(
        "services:\n  web:\n    image: {name}\n    command: [sleep, \"600\"]\n    stop_signal: SIGKILL\n"
    );
    baking.write("docker-compose.yml", service);
    let baked = baking.bake(&["--image-archive", "oci.tar"]);
    let text = baking.dind.run(["inspect", baked.tag()]).ok();
    assert!(text.contains(&name), "{text}");
    // It runs, and what one is told of it is true: it has no API for others.
    let (host, said) = baking.dind.up_of(baked.tag());
    assert!(said.contains("dind exec -it") && !said.contains("TLS") && !said.contains("dind env"), "{said}");
    host.wait_for_nested("compose-web-1");
    // Compose was not asked about a file that is as it was baked.
    host.exec(["test", "!", "-e", "/run/dind/application.json"]).ok();
    drop(host);
    baking
        .fails(&["--image-archive", "unnamed.tar", "--pull", "never"])
        .exits(1)
        .says(&["no image in unnamed.tar has a name", &format!("there is no image {name}")]);
    let whole = std::fs::read(file("oci.tar")).unwrap();
    std::fs::write(file("oci.tar"), &whole[..whole.len() / 2]).unwrap();
    baking.fails(&["--image-archive", "oci.tar"]).says(&["the archive oci.tar: it is cut short", "help: "]);
}

#[test]
fn what_cannot_be_sealed_is_refused_by_name() {
    let web = local_image("");
    let baking = Baking::new();
    let write = |text: &str| baking.write("docker-compose.yml", text);
    let service = |more: &str| format!("services:\n  web:\n    image: {}\n{more}", web.name());
    // Before any host is made.
    baking.fails(&[]).exits(64).says(&["docker-compose.yml: No such file"]);
    write(&service(""));
    baking.fails(&["--platform", "linux/s390x"]).exits(69).says(&["and not for linux/s390x"]);
    let other = ["--image", web.name()];
    let words = ["bake", "shop/docker-compose.yml", "-t", "x", "--cache", baking.cache()];
    baking.dind.run(words.into_iter().chain(other)).exits(64).says(&["is not a host's image", "help: "]);
    let other = ["--image", "dind-compose-static"];
    baking.dind.run(words.into_iter().chain(other)).exits(64).says(&["dind-compose-static is an appliance"]);
    baking
        .dind
        .run(["bake", "shop/docker-compose.yml", "-t", "Not Good"])
        .exits(64)
        .says(&["cannot be the name of an image"]);
    let gone = [
        "bake",
        "-t",
        "x",
        "shop/docker-compose.yml",
        "--image-archive",
        "gone.tar",
        "--cache",
        baking.cache(),
    ];
    let options = Dind::options();
    baking
        .dind
        .run(gone.into_iter().chain(options.iter().map(String::as_str)))
        .exits(64)
        .says(&["gone.tar", "help: "]);
    // By Compose, in its own words.
    write("services:\n  web:\n    image: [\n");
    baking.fails(&[]).exits(64).says(&["is no good Compose file", "  | yaml: "]);
    // What no appliance has.
    write(&service("    deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}\n"));
    baking.fails(&[]).exits(64).says(&["the service web needs a GPU"]);
    write(&service("    volumes: [\"/srv/data:/data\"]\n"));
    baking.fails(&[]).exits(64).says(&["the service web mounts /srv/data of the machine"]);
    // Images that are not what the file says. Nobody listens there.
    write("services:\n  web:\n    image: 127.0.0.1:9/gone:1\n");
    baking.fails(&[]).exits(69).says(&["127.0.0.1:9/gone:1 cannot be pulled", "--image-archive FILE"]);
    baking.fails(&["--pull", "never"]).exits(1).says(&["there is no image 127.0.0.1:9/gone:1"]);
    let digest = format!("sha256:{}", "0".repeat(64));
    write(&format!("services:\n  web:\n    image: {}@{digest}\n", web.name()));
    baking.fails(&[]).exits(69).says(&[&digest]);
    // A build that fails shows its last lines.
    write("services:\n  web:\n    build: web\n");
    baking.write("web/Dockerfile", format!("FROM {}\nRUN echo said; exit 7\n", web.name()));
    baking.fails(&[]).exits(1).says(&["cannot be built", "said", "exit code: 7"]);
}

/// What `htpasswd -nbB me secret` prints.
const PASSWORDS: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

#[test]
fn a_registry_that_asks_for_a_password_gets_the_users() {
    let registry = Registry::with_passwords(PASSWORDS);
    let address = registry.address();
    // "me:secret"
    let config = format!(r#"{{"auths": {{"{address}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#);
    let insecure = format!("DIND_INSECURE_REGISTRIES={address}");
    let maker = Host::options().env("DIND_INSECURE_REGISTRIES", &address);
    let maker = maker.file("/root/.docker/config.json", 0o600, config.as_str()).start();
    maker.load_busybox();
    let image = format!("{address}/private/box:1");
    maker.docker(["tag", "busybox", &image]).ok();
    maker.docker(["push", "-q", &image]).ok();
    let digest = maker.docker(["image", "inspect", "-f", "{{index .RepoDigests 0}}", &image]).ok();
    drop(maker);
    let baking = Baking::new();
    baking.write("docker-compose.yml", format!("services:\n  web:\n    image: {image}\n"));
    baking
        .fails(&["-e", &insecure])
        .exits(69)
        .says(&["cannot be pulled", &format!("log in: docker login {address}")]);
    std::fs::create_dir(baking.dind.home().join("docker")).unwrap();
    std::fs::write(baking.dind.home().join("docker/config.json"), config).unwrap();
    let baked = baking.bake(&["-e", &insecure]);
    let said: serde_json::Value =
        serde_json::from_str(&baking.dind.run(["inspect", "--json", baked.tag()]).ok()).unwrap();
    assert_eq!(said[0]["images"][0]["digests"][0], digest);
    // What let it in is not in the image.
    let whole =
        Call::new("sh").args(["-c", &format!("docker save {} | grep -ac bWU6c2VjcmV0", baked.tag())]).run();
    assert_eq!(whole.stdout.trim(), "0");
    // By its digest, and by one that the registry does not have.
    baking.write("docker-compose.yml", format!("services:\n  web:\n    image: {digest}\n"));
    let pinned = baking.bake(&["-e", &insecure]);
    assert!(baking.dind.run(["inspect", pinned.tag()]).ok().contains(digest.split('@').nth(1).unwrap()));
    let other = format!("{}@sha256:{}", digest.split('@').next().unwrap(), "1".repeat(64));
    baking.write("docker-compose.yml", format!("services:\n  web:\n    image: {other}\n"));
    baking.fails(&["-e", &insecure]).exits(69).says(&["change the digest in the Compose file"]);
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing_but_the_cache() {
    let web = local_image("");
    let baking = Baking::new();
    baking.write("docker-compose.yml", "services:\n  web:\n    build: web\n");
    baking.write("web/Dockerfile", format!("FROM {}\nRUN sleep 100\n", web.name()));
    let tag = Dind::name();
    let words = ["bake", "-q", "shop/docker-compose.yml", "-t", &tag, "--cache", baking.cache()];
    let mut child = baking.dind.command(words).args(Dind::options()).process_group(0).spawn().unwrap();
    let builds = || docker(["top", baking.cache()]).stdout.contains("sleep 100").then_some(());
    until("the build to run", 60, builds);
    killpg(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    baking.assert_nothing_is_left();
    assert_eq!(docker(["image", "ls", "-q", &tag]).ok(), "");
    // The next one finds the cache in order.
    baking.write("web/Dockerfile", format!("FROM {}\n", web.name()));
    drop(baking.bake(&[]));
}

/// Whichever of the two disks of a bake is full, it says so and what to remove.
#[test]
fn a_full_disk_ends_it_with_what_to_do() {
    let web = local_image("RUN head -c 30000000 /dev/urandom >/random");
    // The engine's, and that of the store.
    for (engine, store, cause) in [("20m", "200m", "cannot be copied"), ("200m", "20m", "cannot be sealed")] {
        let baking = Baking::new();
        baking.write("docker-compose.yml", format!("services:\n  web:\n    image: {}\n", web.name()));
        for (volume, size) in
            [(baking.cache().to_owned(), engine), (format!("{}-store", baking.cache()), store)]
        {
            let size = format!("o=size={size}");
            docker([
                "volume",
                "create",
                "-d",
                "local",
                "-o",
                "type=tmpfs",
                "-o",
                "device=tmpfs",
                "-o",
                &size,
                &volume,
            ])
            .ok();
        }
        let said = baking.fails(&[]);
        said.exits(1).says(&[web.name(), cause, "o space left on device", "help: make room "]);
    }
}

/// Of two bakes at a time one waits for the other.
#[test]
fn two_at_a_time_take_turns() {
    let web = local_image("");
    let baking = Baking::new();
    baking.write("docker-compose.yml", format!("services:\n  web:\n    image: {}\n", web.name()));
    let tags = [Dind::name(), Dind::name()];
    std::thread::scope(|scope| {
        let both = tags.each_ref().map(|tag| scope.spawn(|| baking.call(tag, &[]).run().ok()));
        let [first, second] = both.map(|bake| bake.join().unwrap());
        assert_eq!(first, second);
    });
    baking.assert_nothing_is_left();
    for tag in tags {
        docker(["rmi", &tag]).ok();
    }
}
