//! What a VIC endpoint says of itself and of containers.

use serde_json::{Map, Value, json};

/// The name by which it is known: `cmd/docker/main.go`, `productName`.
pub(super) const PRODUCT: &str = "vSphere Integrated Containers";

/// The API version that it speaks, and the oldest: `pkg/version/version.go` at 2d7ddb14.
pub(super) const VERSION: &str = "1.25";
pub(super) const OLDEST_VERSION: &str = "1.19";

/// What VIC has from its build (`pkg/version/version.go`, linker flags): release, number and commit. Made up here.
const BUILD: &str = "v1.5.0-0-0000000";

/// `PortLayerName`: `backends.go` at c91fa87e, `Init`.
fn port_layer() -> String {
    format!("{PRODUCT} {BUILD} Backend Engine")
}

/// `GET /version`: `system.go`, `SystemVersion`.
pub(super) fn version() -> Value {
    json!({
        "Version": "1.5.0", "ApiVersion": VERSION, "MinAPIVersion": OLDEST_VERSION, "GitCommit": "0000000",
        "GoVersion": "go1.8.3", "Os": "linux", "Arch": "amd64", "KernelVersion": "-", "Experimental": true,
        "BuildTime": "Thu Nov 15 00:00:00 2018",
    })
}

/// `GET /info`: `system.go`, `SystemInfo`, with the counts and the memory of the real engine. `NCPU` is in MHz there. The names of
/// machine and system are made up; what never changes is in info.json.
pub(super) fn info(real: &Value) -> Value {
    const COUNTED: [&str; 7] = [
        "Containers",
        "ContainersRunning",
        "ContainersPaused",
        "ContainersStopped",
        "Images",
        "MemTotal",
        "SystemTime",
    ];
    let mhz = real["NCPU"].as_i64().unwrap_or(1) * 2000;
    let mut info: Value = serde_json::from_str(include_str!("info.json")).unwrap_or_default();
    for name in COUNTED {
        info[name] = real[name].clone();
    }
    info["ID"] = PRODUCT.into();
    info["Driver"] = port_layer().into();
    info["ServerVersion"] = BUILD.into();
    info["NCPU"] = mhz.into();
    info["SystemStatus"] = json!([
        ["VolumeStores", "default"],
        [port_layer(), "RUNNING"],
        [" VCH CPU limit", format!("{mhz} MHz")]
    ]);
    info
}

/// What VIC remembers of a container that it has made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// `HostConfig` as it was sent.
    pub(super) host: Value,
    pub(super) cpus: i64,
    pub(super) memory_mib: i64,
}

/// A container of the real engine as `GET /containers/ID/json` shows it: `container_proxy.go`,
/// `ContainerInfoToDockerContainerInspect`. What it sends back of `HostConfig` is what was sent, but for the resources: in its last
/// state (hashicorp/vic at 675c2db8, `hostConfigFromContainerInfo`) the memory there is in MiB, and the list of processors a count.
pub(super) fn inspected(mut real: Value, made: Option<&Made>, hidden: &[&str]) -> Value {
    real["Driver"] = port_layer().into();
    real["GraphDriver"] = json!({"Name": port_layer(), "Data": null});
    if let Some(state) = real["State"].as_object_mut() {
        state.remove("Health");
        // convert/state.go leaves what has not happened yet empty.
        for name in ["StartedAt", "FinishedAt"] {
            if state.get(name).and_then(Value::as_str).is_some_and(|moment| moment.starts_with("0001-")) {
                state.insert(name.into(), "".into());
            }
        }
    }
    if let Some(config) = real["Config"].as_object_mut() {
        config.remove("Healthcheck");
        config.insert("StdinOnce".into(), true.into());
        if let Some(labels) = config.get_mut("Labels").and_then(Value::as_object_mut) {
            labels.retain(|name, _| !hidden.contains(&name.as_str()));
        }
    }
    let ports = network(&mut real["NetworkSettings"]);
    if let Some(made) = made {
        let mut host = made.host.as_object().cloned().unwrap_or_default();
        host.insert("Memory".into(), made.memory_mib.into());
        host.insert("CpusetCpus".into(), made.cpus.to_string().into());
        host.insert("CpuCount".into(), 0.into());
        host.insert("VolumeDriver".into(), port_layer().into());
        host.insert("LogConfig".into(), json!({"Type": "json-file", "Config": {}}));
        host.insert("NetworkMode".into(), real["HostConfig"]["NetworkMode"].clone());
        host.insert("PortBindings".into(), ports);
        real["HostConfig"] = host.into();
    }
    real
}

/// `networkFromContainerInfo`: addresses are those of networks, nothing stands above them, and there are no identities. A port's
/// address is the endpoint's: `PortMapFromContainer`.
fn network(settings: &mut Value) -> Value {
    let Some(settings) = settings.as_object_mut() else { return Value::Null };
    for name in ["SandboxID", "SandboxKey", "EndpointID", "Gateway", "IPAddress", "MacAddress", "IPv6Gateway"]
    {
        settings.insert(name.into(), "".into());
    }
    settings.insert("IPPrefixLen".into(), 0.into());
    let networks = settings.get_mut("Networks").and_then(Value::as_object_mut);
    for network in networks.into_iter().flat_map(Map::values_mut) {
        network["NetworkID"] = "".into();
        network["MacAddress"] = "".into();
        network["IPAMConfig"] = Value::Null;
    }
    settings.get("Ports").cloned().unwrap_or_default()
}

/// Containers of the real engine as `GET /containers/json` lists them: `container.go`, `Containers`, which fills in no labels,
/// networks, mounts and image's identity.
pub(super) fn listed(real: &Value) -> Value {
    const FILLED: [&str; 8] = ["Id", "Names", "Image", "Command", "Created", "Ports", "State", "Status"];
    let one = |real: &Value| {
        let mut container: Map<String, Value> =
            FILLED.iter().map(|name| ((*name).to_owned(), real[*name].clone())).collect();
        for name in ["Labels", "NetworkSettings", "Mounts"] {
            container.insert(name.into(), Value::Null);
        }
        container.insert("ImageID".into(), "".into());
        container.insert("HostConfig".into(), json!({}));
        Value::Object(container)
    };
    real.as_array().map(|containers| containers.iter().map(one).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_no_labels() {
        let real =
            json!([{"Id": "a", "Names": ["/x"], "Labels": {"a": "b"}, "Mounts": [], "State": "running"}]);
        let listed = listed(&real);
        assert_eq!(listed[0]["Id"], "a");
        assert_eq!(listed[0]["State"], "running");
        assert_eq!(listed[0]["Labels"], Value::Null);
        assert_eq!(listed[0]["Mounts"], Value::Null);
    }

    #[test]
    fn a_container_shows_what_was_sent_and_a_machines_size() {
        let real = json!({
            "State": {"Status": "created", "Health": {"Status": "healthy"}, "StartedAt": "0001-01-01T00:00:00Z"},
            "Config": {"Labels": {"mine": "1", "theirs": "2"}, "Healthcheck": {"Test": ["NONE"]}},
            "HostConfig": {"CapAdd": ["SYS_ADMIN"], "Memory": 1, "NetworkMode": "default"},
            "NetworkSettings": {"IPAddress": "10.0.0.2", "Ports": {"1/tcp": null},
                "Networks": {"bridge": {"IPAddress": "10.0.0.2", "NetworkID": "n"}}},
        });
        let made = Made { host: json!({"Privileged": true, "Memory": 7}), cpus: 3, memory_mib: 512 };
        let shown = inspected(real, Some(&made), &["theirs"]);
        assert_eq!(shown["State"], json!({"Status": "created", "StartedAt": ""}));
        assert_eq!(shown["Config"]["Labels"], json!({"mine": "1"}));
        assert_eq!(shown["HostConfig"]["Privileged"], true);
        assert_eq!(shown["HostConfig"].get("CapAdd"), None);
        assert_eq!(shown["HostConfig"]["Memory"], 512);
        assert_eq!(shown["HostConfig"]["CpusetCpus"], "3");
        assert_eq!(shown["NetworkSettings"]["IPAddress"], "");
        assert_eq!(shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "10.0.0.2");
        assert_eq!(shown["NetworkSettings"]["Networks"]["bridge"]["NetworkID"], "");
    }
}
