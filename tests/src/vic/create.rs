//! What a VIC endpoint makes of a container to be created: what it refuses, what it passes over in silence, what it means by it;
//! and what the real engine is asked for in its place.

use serde_json::{Map, Value, json};

use super::record::Refused;
use super::source::{COMMANDS, CONTAINER, CONTAINER_PROXY, ERRORS, HOST_CONFIG, STORAGE_PROXY, Source};

/// What of `Config` reaches a container: `dockerContainerCreateParamsToTask` and `…ToPortlayer`. `ExposedPorts` does not, but says
/// nothing that the bindings of ports do not.
const CONFIG: &[&str] = &[
    "Hostname",
    "Domainname",
    "User",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "ExposedPorts",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Env",
    "Cmd",
    "Image",
    "Volumes",
    "WorkingDir",
    "Entrypoint",
    "NetworkDisabled",
    "Labels",
    "StopSignal",
];

/// What of `HostConfig` does: `validateCreateConfig`, `toModelsNetworkConfig` and `AddVolumesToContainer`. `ContainerIDFile` is
/// the client's own business.
const HOST: &[&str] = &[
    "Binds",
    "NetworkMode",
    "PortBindings",
    "AutoRemove",
    "Dns",
    "Links",
    "CpusetCpus",
    "CpuCount",
    "Memory",
    "ContainerIDFile",
];

const DEFAULT_CPUS: i64 = 2;
const DEFAULT_MEMORY_MIB: i64 = 2048;
const LEAST_MEMORY_MIB: i64 = 512;
const MEMORY_STEP_MIB: i64 = 128;
const MIB: i64 = 1024 * 1024;

/// A container to be created, as VIC understands it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// What goes to the real engine.
    pub(super) body: Value,
    /// The virtual machine's size, as VIC shows it.
    pub(super) cpus: i64,
    pub(super) memory_mib: i64,
    /// What was sent and has no effect: its name, its value, and where that can be seen.
    pub(super) lacking: Vec<(String, Value, Source)>,
}

/// Reads the body of `POST /containers/create`.
pub(super) fn read(sent: &Value, machine_cpus: i64) -> Result<Wanted, Refused> {
    let host = sent.get("HostConfig").cloned().unwrap_or_default();
    let cpus = cpus(&host)?;
    let memory_mib = memory(&host);
    networks(sent, &host)?;
    ports(&host)?;
    binds(&host)?;
    let mut lacking = left_over(sent, CONFIG, &["HostConfig", "NetworkingConfig"], "");
    lacking.extend(left_over(&host, HOST, &[], "HostConfig."));
    let mut body = kept(sent, CONFIG);
    body.insert("NetworkingConfig".into(), sent.get("NetworkingConfig").cloned().unwrap_or_default());
    // Nothing carries out health checks: convert/state.go knows no health.
    body.insert("Healthcheck".into(), json!({"Test": ["NONE"]}));
    body.insert("HostConfig".into(), Value::Object(machine(&host, cpus.min(machine_cpus), memory_mib)));
    Ok(Wanted { body: Value::Object(body), cpus, memory_mib, lacking })
}

/// What makes a container of the real engine as capable as a virtual machine of VIC's, and as large.
fn machine(host: &Value, cpus: i64, memory_mib: i64) -> Map<String, Value> {
    let mut machine = kept(host, HOST);
    machine.remove("CpuCount");
    machine.insert("CpusetCpus".into(), format!("0-{}", cpus - 1).into());
    machine.insert("Memory".into(), (memory_mib * MIB).into());
    machine.insert("CapAdd".into(), json!(["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"]));
    machine.insert("SecurityOpt".into(), json!(["seccomp=unconfined", "apparmor=unconfined"]));
    machine.insert("DeviceCgroupRules".into(), json!(["a *:* rwm"]));
    // What VIC opens on its public interface the stand-in opens on its own: nothing but this machine reaches it.
    let bindings = machine.get_mut("PortBindings").and_then(Value::as_object_mut);
    for binding in bindings.into_iter().flat_map(Map::values_mut).filter_map(Value::as_array_mut).flatten() {
        binding["HostIp"] = "127.0.0.1".into();
    }
    machine
}

/// The count that VIC reads out of a list of processors.
fn cpus(host: &Value) -> Result<i64, Refused> {
    let count = host["CpuCount"].as_i64().unwrap_or(0);
    let list = host["CpusetCpus"].as_str().unwrap_or_default();
    if count > 0 || list.is_empty() {
        return Ok(if count > 0 { count } else { DEFAULT_CPUS });
    }
    let first = list.split(',').next().unwrap_or_default();
    first.parse().map(|count: i64| count.max(1)).map_err(|_| {
        let text = format!("Error parsing CPU count: strconv.Atoi: parsing {first:?}: invalid syntax");
        Refused::new(500, text, CONTAINER.at("validateCreateConfig"))
    })
}

fn memory(host: &Value) -> i64 {
    let mib = match host["Memory"].as_i64().unwrap_or(0) / MIB {
        0 => DEFAULT_MEMORY_MIB,
        mib => mib.max(LEAST_MEMORY_MIB),
    };
    (mib + MEMORY_STEP_MIB - 1) / MEMORY_STEP_MIB * MEMORY_STEP_MIB
}

fn networks(sent: &Value, host: &Value) -> Result<(), Refused> {
    let endpoints = sent["NetworkingConfig"]["EndpointsConfig"].as_object();
    if endpoints.is_some_and(|endpoints| endpoints.len() > 1) {
        let text = "NetworkMode error: Container can be connected to one vicnetwork endpoint only";
        return Err(Refused::new(500, text, CONTAINER.at("validateCreateConfig")));
    }
    if host["NetworkMode"] == "host" {
        // How it begins is in container_proxy.go, AddContainerToScope; the rest is made by generated code, and was not found.
        let text = "Server error from portlayer: there is no scope named host";
        return Err(Refused::new(500, text, COMMANDS.at("run")));
    }
    Ok(())
}

fn ports(host: &Value) -> Result<(), Refused> {
    let refused = |what: &str| {
        let text = format!("Server error from portlayer: {what}");
        Err(Refused::new(500, text, CONTAINER.at("validateCreateConfig")))
    };
    let bindings = host["PortBindings"].as_object().into_iter().flat_map(Map::values);
    for binding in bindings.filter_map(Value::as_array).flatten() {
        // The endpoint's public address is accepted, too. The stand-in has none.
        if !matches!(binding["HostIp"].as_str().unwrap_or_default(), "" | "0.0.0.0") {
            return refused(
                "host IP for port bindings is only supported for 0.0.0.0 and the public interface IP address",
            );
        }
        let range = binding["HostPort"].as_str().and_then(|port| port.split_once('-'));
        if range.is_some_and(|(start, end)| start != end) {
            return refused("host port ranges are not supported for port bindings");
        }
    }
    Ok(())
}

fn binds(host: &Value) -> Result<(), Refused> {
    let refused = |what: String, source: Source| {
        Err(Refused::new(400, format!("Bad request error from portlayer: {what}"), source))
    };
    for bind in host["Binds"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let parts: Vec<&str> = bind.split(':').collect();
        if parts.len() > 1 && parts[0].starts_with('/') {
            let text = "mounting directories as a data volume is not supported.";
            return refused(text.into(), ERRORS.at("InvalidVolumeError"));
        }
        if parts.len() > 3 {
            let text = format!("volume bind input is invalid: -v {bind}");
            return refused(text, STORAGE_PROXY.at("processVolumeParam"));
        }
    }
    Ok(())
}

fn kept(from: &Value, names: &[&str]) -> Map<String, Value> {
    let fields = from.as_object().into_iter().flatten();
    fields.filter(|(name, _)| names.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// What is set and nobody reads.
fn left_over(from: &Value, read: &[&str], apart: &[&str], prefix: &str) -> Vec<(String, Value, Source)> {
    let source = if prefix.is_empty() {
        CONTAINER_PROXY.at("dockerContainerCreateParamsToTask and …ToPortlayer")
    } else {
        HOST_CONFIG.at("HostConfig, of which container_proxy.go and storage_proxy.go read a part")
    };
    let fields = from.as_object().into_iter().flatten();
    let unread = fields.filter(|(name, _)| !read.contains(&name.as_str()) && !apart.contains(&name.as_str()));
    let set = unread.filter(|(name, value)| !is_default(name, value));
    set.map(|(name, value)| (format!("{prefix}{name}"), value.clone(), source)).collect()
}

/// Whether a value says no more than its absence: the docker command sends every field, always.
pub(super) fn is_default(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => {
            number.as_f64() == Some(0.0) || (name == "MemorySwappiness" && number.as_i64() == Some(-1))
        }
        Value::String(text) => text.is_empty(),
        // The size of a terminal of Windows.
        Value::Array(items) => items.is_empty() || name == "ConsoleSize",
        Value::Object(fields) if name == "RestartPolicy" => {
            fields.get("Name").is_none_or(|policy| policy == "" || policy == "no")
        }
        Value::Object(fields) => fields.iter().all(|(name, value)| is_default(name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(host: &Value) -> Wanted {
        read(&json!({"Image": "dind", "HostConfig": host}), 4).expect("VIC refuses nothing of it")
    }

    #[test]
    fn a_list_of_processors_is_a_count() {
        for (list, count, set) in
            [("", 2, "0-1"), ("3", 3, "0-2"), ("3,9", 3, "0-2"), ("0", 1, "0-0"), ("64", 64, "0-3")]
        {
            let wanted = wanted(&json!({"CpusetCpus": list}));
            assert_eq!(wanted.cpus, count, "{list}");
            assert_eq!(wanted.body["HostConfig"]["CpusetCpus"], set, "{list}");
        }
        assert_eq!(wanted(&json!({"CpuCount": 3, "CpusetCpus": "1"})).cpus, 3);
    }

    #[test]
    fn memory_comes_in_steps() {
        for (bytes, mib) in [(0, 2048), (1024, 2048), (MIB, 512), (600 * MIB, 640), (4096 * MIB, 4096)] {
            assert_eq!(wanted(&json!({"Memory": bytes})).memory_mib, mib, "{bytes}");
        }
    }

    #[test]
    fn what_vic_refuses() {
        for (sent, status, text) in [
            (json!({"HostConfig": {"CpusetCpus": "0-3"}}), 500, "Error parsing CPU count: "),
            (
                json!({"HostConfig": {"Binds": ["/a:/b"]}}),
                400,
                "mounting directories as a data volume is not supported.",
            ),
            (
                json!({"HostConfig": {"Binds": ["a:/b:rw:x"]}}),
                400,
                "volume bind input is invalid: -v a:/b:rw:x",
            ),
            (json!({"HostConfig": {"NetworkMode": "host"}}), 500, "Server error from portlayer: "),
            (
                json!({"HostConfig": {"PortBindings": {"1/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}}}),
                500,
                "host IP for port bindings is only supported for 0.0.0.0 and the public interface IP address",
            ),
            (
                json!({"HostConfig": {"PortBindings": {"1/tcp": [{"HostPort": "80-90"}]}}}),
                500,
                "host port ranges are not supported for port bindings",
            ),
            (
                json!({"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}}),
                500,
                "Container can be connected to one vicnetwork endpoint only",
            ),
        ] {
            let refused = read(&sent, 2).expect_err("VIC refuses it");
            assert_eq!(refused.status, status, "{sent}");
            assert!(refused.text.contains(text), "{sent}: {}", refused.text);
        }
    }

    #[test]
    fn what_has_no_effect_is_named_and_dropped() {
        let sent = json!({
            "Image": "dind", "StopTimeout": 30, "OnBuild": null, "Healthcheck": {"Test": ["CMD", "true"]},
            "HostConfig": {
                "Privileged": true, "CapAdd": ["SYS_ADMIN"], "CapDrop": null, "RestartPolicy": {"Name": "no"}, "ShmSize": 0,
                "MemorySwappiness": -1, "ConsoleSize": [24, 80], "LogConfig": {"Type": "", "Config": {}},
                "DeviceCgroupRules": ["a *:* rwm"], "Mounts": [{"Type": "tmpfs", "Target": "/x"}], "Init": true,
            },
        });
        let wanted = read(&sent, 2).expect("VIC refuses nothing of it");
        let mut names: Vec<&str> = wanted.lacking.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        let expected = [
            "Healthcheck",
            "HostConfig.CapAdd",
            "HostConfig.DeviceCgroupRules",
            "HostConfig.Init",
            "HostConfig.Mounts",
            "HostConfig.Privileged",
            "StopTimeout",
        ];
        assert_eq!(names, expected);
        assert!(wanted.body["HostConfig"].get("Privileged").is_none());
        assert!(wanted.body["HostConfig"].get("Mounts").is_none());
    }

    #[test]
    fn ports_are_opened_on_this_machine_alone() {
        let wanted = wanted(
            &json!({"PortBindings": {"1/tcp": [{"HostIp": "0.0.0.0", "HostPort": "7"}], "2/tcp": null}}),
        );
        let ports = &wanted.body["HostConfig"]["PortBindings"];
        assert_eq!(*ports, json!({"1/tcp": [{"HostIp": "127.0.0.1", "HostPort": "7"}], "2/tcp": null}));
    }
}
