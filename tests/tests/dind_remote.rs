//! `dind` at an endpoint that is another machine: a host, reached over TLS and over ssh, on which hosts are made.

use dind_tests::{Call, Dind, Host, SshClient, image};

#[test]
fn hosts_on_another_machine_are_reached_where_that_machine_is() {
    let machine = Host::options().ssh().env("DIND_SYNC", "off").start();
    let load = format!("docker save {} | docker exec -i {} docker load", image(), machine.name());
    Call::new("bash").args(["-o", "pipefail", "-c", &load]).within(150).run().ok();
    let client = SshClient::new();
    machine.exec(["adduserkey", "derek", &client.key()]).ok();
    let dind = Dind::new();
    let path = format!("{}:{}", client.folder_with_ssh().display(), std::env::var("PATH").unwrap());
    let certificates = dind.run(["env", machine.name()]).ok();
    let ssh = format!("export DOCKER_HOST=ssh://derek@{}:22", machine.ip());
    for (endpoint, name) in [(certificates.as_str(), "one"), (ssh.as_str(), "two")] {
        // Docker and dind are asked side by side, so the endpoint's variables stay out of the host's.
        let script = format!(
            "{endpoint}\n\
             dind up {name} --image {image} {options} >said\n\
             grep -q 'tcp://{ip}:' said\n\
             dind ls --format '{{{{.Name}}}} {{{{.Address}}}}' | grep -q '^{name} {ip}:'\n\
             inside=$(dind exec {name} docker info -f '{{{{.ID}}}}')\n\
             (eval \"$(dind env --shell sh {name})\"; test \"$(docker info -f '{{{{.ID}}}}')\" = \"$inside\")\n\
             dind context {name} --as inner-{name}\n\
             (unset DOCKER_HOST DOCKER_TLS_VERIFY DOCKER_CERT_PATH; test \"$(docker --context inner-{name} info -f '{{{{.ID}}}}')\" = \"$inside\")\n\
             dind run -q --image {image} {options} -- docker version -f '{{{{.Server.Os}}}}'\n\
             dind rm -f {name}\n\
             dind ls -aq",
            image = image(),
            // This machine speaks to them from an address of its own bridge, which a host in a host would take for one of its own.
            options = "--docker-opts '--bip 10.213.7.1/24'",
            ip = machine.ip(),
        );
        let ended = dind.dress(
            Call::new("bash").args(["-euo", "pipefail", "-c", &dind.script(&script)]).env("PATH", &path),
        );
        let said = ended.within(120).run().ok();
        assert_eq!(said, format!("inner-{name}\nlinux\n{name}"), "over {}", endpoint.lines().next().unwrap());
    }
    // The machine itself is no host of its own.
    let script = format!("{certificates}\ndind stop {}", machine.name());
    dind.shell(&script).exits(1).says(&["DOCKER_HOST is the host", "dind env --unset"]);
}
