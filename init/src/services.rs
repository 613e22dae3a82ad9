//! What the services are: what each needs, how it is started, and what a killed one leaves behind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dind_contract::status::Endpoint;
use dind_contract::{API_PORT, PLAIN_PORT, paths};

use crate::appliance::{Duty, Project};
use crate::engine_config::EngineConfig;
use crate::ground::Ground;
use crate::options::tcp_port;
use crate::process::{self, Started};
use crate::settings::{Listen, Settings};
use crate::shutdown::Schedule;
use crate::sshd;
use crate::supervisor::{FOR_EVER, Rules};

/// dockerd may have thousands of containers to look after before it answers.
const DOCKERD_READY: Duration = Duration::from_secs(300);
const CONTAINERD_READY: Duration = Duration::from_secs(60);
const RESOLVER_READY: Duration = Duration::from_secs(10);
const SSHD_READY: Duration = Duration::from_secs(30);

/// Where dockerd keeps the pipes of programs in containers, in a folder a container, and the state of a containerd that it starts
/// itself; ours keeps it there, too, so that a data root moves freely between this image and any other.
const CONTAINERD_STATE: &str = "/var/run/docker/containerd";
/// Where our containerd answers.
pub(crate) const CONTAINERD_SOCKET: &str = "/var/run/docker/containerd/containerd.sock";

/// A service: what the supervisor must know and what it takes to start it.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// What the supervisor knows.
    pub(crate) rules: Rules,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// Its environment.
    pub(crate) environment: BTreeMap<String, OsString>,
    /// Files that a killed one leaves behind and a new one would stumble over.
    pub(crate) leftovers: Vec<PathBuf>,
    /// The folder with the pipes that it reads, see [`pipes`](crate::pipes).
    pub(crate) pipes: Option<PathBuf>,
    /// The words with which a line of its log begins that says that it is ready, where it may not know how to say so otherwise.
    pub(crate) ready_words: Option<&'static str>,
    /// The words with which it says, in its log, that nothing is left for it to do but to end.
    pub(crate) last_words: Option<&'static str>,
    /// The file that it is configured by.
    pub(crate) config: Option<Config>,
}

impl Service {
    /// Starts its process, with nothing in the way that a killed one has left behind.
    ///
    /// # Errors
    /// Its configuration cannot be written, or what fork(2) or execve(2) said.
    pub(crate) fn start(&self, program: &Path) -> io::Result<Started> {
        let mut environment = self.environment.clone();
        environment.insert("NOTIFY_SOCKET".to_owned(), paths::NOTIFY_SOCKET.into());
        self.remove_leftovers();
        self.config.as_ref().map_or(Ok(()), Config::write)?;
        process::start(program.as_os_str(), &self.arguments, &environment)
    }

    /// Removes what a killed one has left behind.
    pub(crate) fn remove_leftovers(&self) {
        for file in &self.leftovers {
            let _ = fs::remove_file(file);
        }
    }
}

/// A service's configuration file.
#[derive(Debug, Clone)]
pub(crate) enum Config {
    /// A folder that must be there.
    Folder(PathBuf),
    /// Where it is, and its text.
    Text(PathBuf, String),
    /// dockerd's: the user's, and what was decided.
    Engine(EngineConfig),
}

impl Config {
    fn write(&self) -> io::Result<()> {
        match self {
            Self::Text(path, text) => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::write(path, text)
            }
            Self::Folder(folder) => fs::DirBuilder::new().recursive(true).mode(0o755).create(folder),
            Self::Engine(config) => config.write(),
        }
    }
}

/// The programs of the services, in the order of [`all`]; they are found on `PATH`.
pub(crate) const PROGRAMS: [&str; 2] = ["containerd", "dockerd"];

/// The same, with sshd where the image is made for it.
pub(crate) fn programs() -> Vec<&'static str> {
    PROGRAMS.into_iter().chain(sshd::is_wanted().then_some("sshd")).collect()
}

/// All services of a host, in the order of their start; the positions are the ids in [`Rules::uses`];
/// each with its program; `programs` has those of [`programs`], `application` is the project that an appliance runs.
pub(crate) fn all(
    settings: &Settings,
    ground: &Ground,
    programs: &[PathBuf],
    application: Option<Project>,
) -> Vec<(Service, PathBuf)> {
    let engine = [containerd(settings, ground), dockerd(settings, ground)];
    let mut all: Vec<_> = engine.into_iter().zip(programs.iter().cloned()).collect();
    let relayed: Vec<IpAddr> = ground.relayed().collect();
    if !relayed.is_empty() {
        // It starts before dockerd and ends after it: containers ask for names as long as they run.
        all.insert(1, (resolver(&relayed), PathBuf::from(process::OURSELVES)));
        if let Some((dockerd, _)) = all.last_mut() {
            dockerd.rules.uses.push(1);
        }
    }
    if let Some(program) = programs.get(PROGRAMS.len()) {
        // Its sessions use all of them.
        let uses = (0..all.len()).collect();
        all.push((sshd(settings, uses), program.clone()));
    }
    if let Some(project) = application {
        let uses = (0..all.len()).collect();
        all.push((compose(settings, project, uses), PathBuf::from(process::OURSELVES)));
    }
    all
}

/// The name of the service that looks after an application.
pub(crate) const COMPOSE: &str = "compose";

fn compose(settings: &Settings, project: Project, uses: Vec<usize>) -> Service {
    let stop_within = Schedule::new(Duration::ZERO, settings.stop_timeout).application;
    let duty = Duty {
        project,
        stop_within: u64::try_from(stop_within.as_millis()).unwrap_or(u64::MAX),
        data_root: settings.daemon.data_root.clone(),
    };
    Service {
        rules: Rules {
            name: COMPOSE,
            uses,
            ready_within: FOR_EVER,
            answers_ping: false,
            takes_options: false,
            holds_containers: false,
            holds_sessions: false,
            runs_application: true,
            awaited: true,
            essential: false,
        },
        arguments: [process::HELPER, "application"]
            .map(str::to_owned)
            .into_iter()
            .chain(duty.arguments())
            .collect(),
        environment: settings.appliance.iter().flat_map(|it| it.environment.clone()).collect(),
        leftovers: Vec::new(),
        pipes: None,
        ready_words: None,
        last_words: None,
        config: None,
    }
}

fn sshd(settings: &Settings, uses: Vec<usize>) -> Service {
    let path = settings.environment.get("PATH").map(|path| ("PATH".to_owned(), path.clone()));
    Service {
        rules: Rules {
            name: "sshd",
            uses,
            ready_within: SSHD_READY,
            answers_ping: false,
            takes_options: false,
            holds_containers: false,
            holds_sessions: true,
            runs_application: false,
            awaited: true,
            essential: false,
        },
        arguments: ["-D", "-e", "-f", paths::SSHD_CONFIG].map(str::to_owned).to_vec(),
        // What services are told (proxies with their passwords) is none of its users' business.
        environment: path.into_iter().collect(),
        leftovers: Vec::new(),
        pipes: None,
        // Releases before 9.8 know no sd_notify(3), where their distribution has not taught it to them.
        ready_words: Some("Server listening on "),
        last_words: None,
        config: Some(Config::Folder("/run/sshd".into())),
    }
}

fn resolver(servers: &[IpAddr]) -> Service {
    Service {
        rules: Rules {
            name: "resolver",
            uses: Vec::new(),
            ready_within: RESOLVER_READY,
            answers_ping: false,
            takes_options: false,
            holds_containers: false,
            holds_sessions: false,
            runs_application: false,
            awaited: false,
            essential: false,
        },
        arguments: [process::HELPER, "resolver"]
            .map(str::to_owned)
            .into_iter()
            .chain(servers.iter().map(IpAddr::to_string))
            .collect(),
        environment: BTreeMap::new(),
        leftovers: Vec::new(),
        pipes: None,
        ready_words: None,
        last_words: None,
        config: None,
    }
}

fn containerd(settings: &Settings, ground: &Ground) -> Service {
    let socket = CONTAINERD_SOCKET;
    let config = PathBuf::from(format!("{CONTAINERD_STATE}/containerd.toml"));
    Service {
        rules: Rules {
            name: "containerd",
            uses: Vec::new(),
            ready_within: CONTAINERD_READY,
            answers_ping: false,
            takes_options: false,
            holds_containers: false,
            holds_sessions: false,
            runs_application: false,
            awaited: true,
            essential: true,
        },
        arguments: vec!["--config".to_owned(), config.display().to_string()],
        environment: settings.environment.clone(),
        // dockerd takes a second to try a socket again that refuses it, and 10 ms one that is not there.
        leftovers: vec![socket.into(), format!("{socket}.ttrpc").into()],
        pipes: None,
        ready_words: None,
        last_words: None,
        config: Some(Config::Text(config, containerd_config(settings, ground))),
    }
}

/// What dockerd would write for its own containerd (moby, `libcontainerd/supervisor`), less the plugins for which dockerd
/// has no use: each costs time at the start.
fn containerd_config(settings: &Settings, ground: &Ground) -> String {
    let toml = |text: &str| serde_json::Value::from(text).to_string();
    // Where overlay does not work, these take the whole of containerd 2 down with them.
    let no_overlay = ground.arguments().any(|word| ["fuse-overlayfs", "vfs"].contains(&word));
    let disabled = ["aufs", "blockfile", "btrfs", "devmapper", "erofs", "zfs"]
        .into_iter()
        .chain(no_overlay.then_some("overlayfs"))
        .map(|name| format!("io.containerd.snapshotter.v1.{name}"))
        .chain(["io.containerd.grpc.v1.cri".to_owned(), "io.containerd.tracing.processor.v1.otlp".to_owned()])
        .map(|name| toml(&name))
        .collect::<Vec<_>>()
        .join(", ");
    // A layer that it calls unpacked is on the disk: its records would be believed after a power cut. From containerd 2 on, and of
    // use for its own image store only.
    let durably = format!(
        "[plugins.{}]\n  sync_fs = {}\n",
        toml("io.containerd.service.v1.diff-service"),
        settings.sync
    );
    format!(
        "version = 2\nroot = {}\nstate = {}\noom_score = 0\ndisabled_plugins = [{disabled}]\n\n\
         [grpc]\n  address = {}\n\n[debug]\n  level = \"warn\"\n\n{durably}",
        toml(&ground.engine_root.join("containerd/daemon").to_string_lossy()),
        toml(&format!("{CONTAINERD_STATE}/daemon")),
        toml(CONTAINERD_SOCKET),
    )
}

fn dockerd(settings: &Settings, ground: &Ground) -> Service {
    let options = &settings.daemon;
    let mut arguments = vec!["--containerd".to_owned(), CONTAINERD_SOCKET.to_owned()];
    arguments.extend(["--config-file".to_owned(), paths::ENGINE_CONFIG.to_owned()]);
    for (key, place) in [("data-root", &ground.engine_root), ("pidfile", &options.pidfile)] {
        arguments.extend([format!("--{key}"), place.display().to_string()]);
    }
    match &settings.listen {
        Listen::Local => {}
        // Said explicitly: dockerd sleeps 16 s over a plain port unless it is told that it is meant.
        Listen::Plain | Listen::Told => arguments.push("--tls=false".to_owned()),
        Listen::Tls(folder) => {
            arguments.push("--tlsverify".to_owned());
            for (option, file) in
                [("--tlscacert", "ca.pem"), ("--tlscert", "cert.pem"), ("--tlskey", "key.pem")]
            {
                arguments.extend([option.to_owned(), folder.join("server").join(file).display().to_string()]);
            }
        }
    }
    for host in options.listeners(settings.listen.tls()) {
        arguments.extend(["-H".to_owned(), host]);
    }
    arguments.extend(ground.arguments().map(str::to_owned));
    arguments.extend_from_slice(&options.passed);
    Service {
        rules: Rules {
            name: "dockerd",
            uses: vec![0],
            ready_within: DOCKERD_READY,
            answers_ping: true,
            takes_options: true,
            holds_containers: true,
            holds_sessions: false,
            runs_application: false,
            awaited: true,
            essential: true,
        },
        arguments,
        environment: ground.environment(&settings.environment),
        // A pid file is believed by dockerd when any process has that pid.
        leftovers: vec![options.pidfile.clone(), paths::DOCKER_SOCKET.into()],
        pipes: Some(CONTAINERD_STATE.into()),
        ready_words: None,
        // moby, `daemon/daemon.go`: containers have ended, and what is to be written has been written.
        last_words: Some("Daemon shutdown complete"),
        config: Some(Config::Engine(EngineConfig::new(
            &options.config_file,
            &options.config,
            ground.config(),
        ))),
    }
}

/// How a client outside reaches the host, whose address there is `outside`.
pub(crate) fn endpoint(settings: &Settings, outside: IpAddr) -> Endpoint {
    let tcp = |port| {
        // Where `-H` names an address for the port, there is no other.
        let told =
            settings.daemon.hosts.iter().filter(|host| tcp_port(host) == Some(port)).find_map(|host| {
                host.strip_prefix("tcp://")?
                    .parse()
                    .ok()
                    .filter(|told: &SocketAddr| !told.ip().is_unspecified())
            });
        format!("tcp://{}", told.unwrap_or_else(|| SocketAddr::new(outside, port)))
    };
    let (docker_host, tls_verify, cert_path) = match &settings.listen {
        Listen::Local => (format!("unix://{}", paths::DOCKER_SOCKET), false, None),
        Listen::Plain => (tcp(PLAIN_PORT), false, None),
        Listen::Told => {
            let ports: Vec<u16> = settings.daemon.hosts.iter().filter_map(|host| tcp_port(host)).collect();
            let first = ports.first().copied().filter(|_| !ports.contains(&PLAIN_PORT));
            (tcp(first.unwrap_or(PLAIN_PORT)), false, None)
        }
        Listen::Tls(folder) => {
            // There is none beside a server certificate that somebody brought alone.
            let client = folder.join("client");
            let cert_path = client.join("cert.pem").exists().then(|| client.display().to_string());
            (tcp(API_PORT), true, cert_path)
        }
    };
    Endpoint { docker_host, tls_verify, cert_path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(environment: &[(&str, &str)]) -> Settings {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::load(environment, &[], |_| Ok(None)).unwrap()
    }

    fn all_on_plain_ground(settings: &Settings) -> Vec<Service> {
        with_ground(settings, &Ground::new(settings.daemon.data_root.clone()))
    }

    fn with_ground(settings: &Settings, ground: &Ground) -> Vec<Service> {
        all(settings, ground, &PROGRAMS.map(PathBuf::from), None)
            .into_iter()
            .map(|(service, _)| service)
            .collect()
    }

    fn dockerd_arguments(environment: &[(&str, &str)]) -> String {
        shell_words::join(&all_on_plain_ground(&settings(environment))[1].arguments)
    }

    #[test]
    fn dockerd_listens_as_told() {
        let tls = dockerd_arguments(&[]);
        assert!(tls.contains("--tlsverify --tlscacert /certs/server/ca.pem"), "{tls}");
        assert!(tls.contains("-H unix:///var/run/docker.sock -H tcp://0.0.0.0:2376"), "{tls}");
        let plain = dockerd_arguments(&[("DIND_TLS", "off")]);
        assert!(plain.contains("--tls=false") && plain.contains("-H tcp://0.0.0.0:2375"), "{plain}");
        let arguments = ["dockerd", "-H", "tcp://127.0.0.1:2375"].map(str::to_owned);
        let told = Settings::load([], &arguments, |_| Ok(None)).unwrap();
        let told = shell_words::join(&all_on_plain_ground(&told)[1].arguments);
        assert!(
            told.contains("'--tls=false' -H unix:///var/run/docker.sock -H tcp://127.0.0.1:2375"),
            "{told}"
        );
        assert!(!told.contains("0.0.0.0"), "{told}");
        let local = dockerd_arguments(&[("LOCAL", "true")]);
        assert!(!local.contains("tcp://") && !local.contains("tls"), "{local}");
    }

    #[test]
    fn the_endpoint_is_where_the_host_listens() {
        let outside: IpAddr = "10.0.0.7".parse().unwrap();
        for (environment, docker_host) in [
            (&[("DIND_TLS", "on")], "tcp://10.0.0.7:2376"),
            (&[("DIND_TLS", "off")], "tcp://10.0.0.7:2375"),
            (&[("LOCAL", "true")], "unix:///var/run/docker.sock"),
            (&[("DOCKER_OPTS", "-H tcp://127.0.0.1:2376")], "tcp://127.0.0.1:2376"),
            (&[("DOCKER_OPTS", "-H tcp://0.0.0.0:2376")], "tcp://10.0.0.7:2376"),
            (&[("DOCKER_OPTS", "-H tcp://127.0.0.1:4000")], "tcp://10.0.0.7:2376"),
        ] {
            assert_eq!(endpoint(&settings(environment), outside).docker_host, docker_host, "{environment:?}");
        }
        let told = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
            endpoint(&Settings::load([], &arguments, |_| Ok(None)).unwrap(), outside).docker_host
        };
        assert_eq!(told(&["dockerd", "-H", "tcp://127.0.0.1:2375"]), "tcp://127.0.0.1:2375");
        assert_eq!(told(&["dockerd", "--tls=false", "-H", "tcp://0.0.0.0:4000"]), "tcp://10.0.0.7:4000");
        let v6 = endpoint(&settings(&[]), "fd00::7".parse().unwrap());
        assert_eq!(v6.docker_host, "tcp://[fd00::7]:2376");
    }

    #[test]
    fn options_come_last_and_whole() {
        let arguments = dockerd_arguments(&[("DOCKER_OPTS", "--insecure-registry 10.0.0.1 --label 'a=b c'")]);
        assert!(arguments.ends_with("--insecure-registry 10.0.0.1 --label 'a=b c'"), "{arguments}");
    }

    #[test]
    fn containerd_keeps_its_data_where_dockerd_would_have_it() {
        let services = all_on_plain_ground(&settings(&[("DOCKER_OPTS", "--data-root '/data \"x\"'")]));
        let Some(Config::Text(_, config)) = &services[0].config else { panic!() };
        assert!(config.contains(r#"root = "/data \"x\"/containerd/daemon""#), "{config}");
        assert!(config.contains(r#"state = "/var/run/docker/containerd/daemon""#), "{config}");
    }

    #[test]
    fn a_service_uses_only_services_that_start_before_it() {
        let settings = settings(&[]);
        let mut relayed = Ground::new(settings.daemon.data_root.clone());
        let mut decision = crate::ground::Decision::good("dns", "", "");
        decision.relayed = vec!["127.0.0.11".parse().unwrap()];
        relayed.decisions.push(decision);
        let programs = ["containerd", "dockerd", "sshd"].map(PathBuf::from);
        let project = Project { folder: "/".into(), files: vec!["/compose.yaml".into()], name: None };
        let whole = |application| {
            let all = all(&settings, &relayed, &programs, application);
            all.into_iter().map(|(service, _)| service).collect()
        };
        let table = [
            (all_on_plain_ground(&settings), vec!["containerd", "dockerd"]),
            (with_ground(&settings, &relayed), vec!["containerd", "resolver", "dockerd"]),
            (whole(None), vec!["containerd", "resolver", "dockerd", "sshd"]),
            (whole(Some(project)), vec!["containerd", "resolver", "dockerd", "sshd", "compose"]),
        ];
        for (services, names) in table {
            assert_eq!(services.iter().map(|service| service.rules.name).collect::<Vec<_>>(), names);
            for (id, service) in services.iter().enumerate() {
                assert!(service.rules.uses.iter().all(|used| *used < id), "{}", service.rules.name);
            }
            assert_eq!(services.last().unwrap().rules.uses.len(), services.len() - 1);
        }
    }
}
