//! `dind ls`: which hosts there are.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::ContainerSummary;
use clap::Args;
use dind_contract::{API_PORT, PLAIN_PORT, labels, paths};
use futures_util::future::join_all;
use serde::Serialize;

use crate::endpoint::{self, BadAnswer, ContainerId, Endpoint, Machine, Place};
use crate::failure::Result;
use crate::hosts::{self, Listed};
use crate::inside::{self, RunError};
use crate::table::{self, Format};
use crate::{Context, assets, output};

/// List hosts
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Also those that do not run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Also how much disk the data of each takes, which has to be counted
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Only ids
    #[arg(short, long, conflicts_with_all = ["json", "format"])]
    pub(crate) quiet: bool,
    /// As JSON: a list
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// A line for each by this pattern, such as '{{.Name}} {{.Address}}'; 'table PATTERN' for columns; json for a JSON object a line
    #[arg(long, value_name = "PATTERN")]
    pub(crate) format: Option<String>,
}

/// A host, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    id: ContainerId,
    name: String,
    /// `running`, `exited`, `created` …
    state: String,
    /// `healthy`, `unhealthy`, `starting`; nothing when it does not run, or the endpoint does not look after that.
    health: Option<String>,
    flavour: String,
    engine: Option<String>,
    /// Where its API is, as seen on the endpoint's machine.
    address: Option<String>,
    image: String,
    /// Seconds since 1970.
    created: i64,
    /// Bytes in the data root of one that runs, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<i64>,
}

/// Names in patterns, in the order of [`Row::cells`].
const FIELDS: [&str; 10] =
    ["ID", "Name", "State", "Health", "Flavour", "Engine", "Address", "Image", "Age", "Size"];

impl Row {
    fn new(endpoint: &Endpoint, machine: &Machine, host: Listed) -> Result<Self> {
        let Listed { id, name, container: host } = host;
        let place = place(machine, &host).map_err(|bad| endpoint.distrust(&bad))?;
        let mut labels = host.labels.unwrap_or_default();
        let status = host.status.unwrap_or_default();
        Ok(Self {
            id,
            name,
            state: host.state.map(|state| state.to_string()).unwrap_or_default(),
            health: health(&status).map(str::to_owned),
            flavour: labels.remove(labels::FLAVOUR).unwrap_or_default(),
            engine: labels.remove(labels::ENGINE).filter(|engine| !engine.is_empty()),
            address: place.map(|place| place.to_string()),
            image: host.image.unwrap_or_default(),
            created: host.created.unwrap_or(0),
            size: None,
        })
    }

    fn cells(&self, now: i64) -> Vec<String> {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.id.short().to_owned(),
            self.name.clone(),
            self.state.clone(),
            or_dash(&self.health),
            self.flavour.clone(),
            or_dash(&self.engine),
            or_dash(&self.address),
            self.image.clone(),
            table::age(now - self.created),
            self.size.map_or_else(
                || "-".to_owned(),
                |bytes| indicatif::DecimalBytes(u64::try_from(bytes).unwrap_or(0)).to_string(),
            ),
        ]
    }
}

/// Does it.
pub(crate) async fn run(context: &Context, ls: Ls) -> Result<()> {
    // Before anything is asked: a pattern that is no good.
    let format = ls.format.as_deref().map(|format| Format::parse(format, &FIELDS)).transpose()?;
    let endpoint = context.connect().await?;
    let rows = rows(&endpoint, ls.all, ls.size).await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
    if ls.quiet {
        return output::print(&rows.iter().map(|row| format!("{}\n", row.id.short())).collect::<String>());
    }
    if ls.json {
        let text = serde_json::to_string_pretty(&rows).unwrap_or_default();
        return output::print(&format!("{text}\n"));
    }
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.cells(now)).collect();
    let text = match format {
        None | Some(Format::Usual) => listed(&cells, ls.size),
        Some(Format::Json) => {
            rows.iter().map(|row| serde_json::to_string(row).unwrap_or_default() + "\n").collect()
        }
        Some(Format::Table(pattern)) => table::titled(&pattern, &FIELDS, &cells)?,
        Some(Format::Lines(pattern)) => {
            cells.iter().map(|row| table::pattern(&pattern, &FIELDS, row)).collect::<Result<String>>()?
        }
    };
    output::print(&text)
}

/// The table: without the id and the image, which few need.
fn listed(cells: &[Vec<String>], size: bool) -> String {
    let mut columns = vec![
        ("NAME", 1),
        ("STATE", 2),
        ("HEALTH", 3),
        ("FLAVOUR", 4),
        ("ENGINE", 5),
        ("ADDRESS", 6),
        ("AGE", 8),
    ];
    if size {
        columns.push(("DISK", 9));
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let rows: Vec<Vec<String>> = cells
        .iter()
        .map(|row| columns.iter().map(|(_, index)| row.get(*index).cloned().unwrap_or_default()).collect())
        .collect();
    table::table(&names, &rows)
}

async fn rows(endpoint: &Endpoint, all: bool, size: bool) -> Result<Vec<Row>> {
    let hosts = hosts::list(endpoint, all, None).await?;
    let machine = endpoint.machine();
    let rows = hosts.into_iter().map(|host| Row::new(endpoint, &machine, host));
    let mut rows: Vec<Row> = rows.collect::<Result<_>>()?;
    if size {
        let sizes = join_all(rows.iter().map(|row| disk(endpoint, row))).await;
        for (row, size) in rows.iter_mut().zip(sizes) {
            row.size = size?;
        }
    }
    Ok(rows)
}

/// How much is in the data root of a host that runs. (What engines say of volumes has changed its form, and VIC says nothing.)
///
/// # Errors
/// The endpoint cannot be trusted. That it does not say is none.
async fn disk(endpoint: &Endpoint, row: &Row) -> Result<Option<i64>> {
    if row.state != "running" {
        return Ok(None);
    }
    // -x: not what is mounted in it, which would be counted twice.
    let answer = match inside::run(endpoint, &row.id, &["du", "-sxk", paths::DATA_ROOT], |_| ()).await {
        Ok(answer) => answer,
        Err(RunError::Refused(_)) => return Ok(None),
        Err(RunError::Distrusted(failure)) => return Err(failure),
    };
    let kilobytes = answer.stdout.split_whitespace().next().and_then(|number| number.parse::<i64>().ok());
    Ok(kilobytes.map(|kilobytes| kilobytes.saturating_mul(1024)))
}

/// Where the API is, as seen on the endpoint's machine: published with TLS or without, or the container's own.
fn place(machine: &Machine, host: &ContainerSummary) -> Result<Option<Place>, BadAnswer> {
    if is_local(host) {
        return Ok(None);
    }
    let address = |text: &Option<String>| endpoint::address(text.as_deref().unwrap_or_default());
    for wanted in [API_PORT, PLAIN_PORT] {
        for port in host.ports.iter().flatten().filter(|port| port.private_port == wanted) {
            let address = address(&port.ip)?.filter(|address| !address.is_unspecified());
            if let Some(port) = port.public_port {
                let machine = address.map_or_else(|| machine.clone(), Machine::from);
                return Ok(Some(Place { machine, port }));
            }
        }
    }
    let networks = host.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let mut own = None;
    for network in networks.into_iter().flat_map(HashMap::values) {
        for address in [address(&network.ip_address)?, address(&network.global_ipv6_address)?] {
            own = own.or(address);
        }
    }
    Ok(own.map(|address| Place { machine: address.into(), port: API_PORT }))
}

/// Whether it serves its API to nobody outside, as far as a list says: what was given to `docker run -e` is not in it.
fn is_local(host: &ContainerSummary) -> bool {
    host.labels.as_ref().is_some_and(|labels| {
        labels.get(labels::LOCAL).is_some_and(|it| it == "true") || assets::is_appliance(labels)
    })
}

/// `Up 5 seconds (healthy)`: the words in the last parentheses.
fn health(status: &str) -> Option<&str> {
    let inner = status.strip_suffix(')')?.rsplit_once('(')?.1;
    match inner {
        "healthy" | "unhealthy" => Some(inner),
        "health: starting" => Some("starting"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerSummaryNetworkSettings, EndpointSettings, PortSummary};

    use super::*;

    #[test]
    fn the_list_reads_well() {
        let row = |name: &str, state: &str, health: Option<&str>, address: Option<&str>| Row {
            id: "0123456789abcdef".parse().unwrap(),
            name: name.into(),
            state: state.into(),
            health: health.map(str::to_owned),
            flavour: "debian".into(),
            engine: Some("26.1.5".into()),
            address: address.map(str::to_owned),
            image: "dind-debian".into(),
            created: 1000,
            size: Some(12_345_678),
        };
        let rows = [
            row("one", "running", Some("healthy"), Some("127.0.0.1:32768")),
            row("a_longer_name", "exited", None, None),
        ];
        let cells: Vec<Vec<String>> = rows.iter().map(|row| row.cells(8200)).collect();
        insta::assert_snapshot!("ls", listed(&cells, false));
        insta::assert_snapshot!("ls-size", listed(&cells, true));
        insta::assert_snapshot!("ls-json", serde_json::to_string_pretty(&rows).unwrap());
    }

    #[test]
    fn an_address_is_one_where_something_listens() {
        let port = |private_port: u16, ip: &str, public_port: Option<u16>| PortSummary {
            private_port,
            ip: Some(ip.to_owned()),
            public_port,
            ..Default::default()
        };
        let host = |label: Option<(&str, &str)>, ports: Vec<PortSummary>, ip: &str| {
            let network = EndpointSettings { ip_address: Some(ip.to_owned()), ..Default::default() };
            ContainerSummary {
                labels: label.map(|(name, value)| HashMap::from([(name.to_owned(), value.to_owned())])),
                ports: Some(ports),
                network_settings: Some(ContainerSummaryNetworkSettings {
                    networks: Some(HashMap::from([("bridge".to_owned(), network)])),
                }),
                ..Default::default()
            }
        };
        let exposed = || vec![port(2375, "", None), port(2376, "", None)];
        for (host, expected) in [
            (host(None, exposed(), "172.17.0.2"), Some("172.17.0.2:2376")),
            (host(None, exposed(), "fd00::2"), Some("[fd00::2]:2376")),
            (host(None, exposed(), ""), None),
            (host(Some((labels::LOCAL, "true")), exposed(), "172.17.0.2"), None),
            (host(Some((assets::TITLE, "dind-compose-static")), exposed(), "172.17.0.2"), None),
            (host(Some((assets::TITLE, "dind-debian")), exposed(), "172.17.0.2"), Some("172.17.0.2:2376")),
            (
                host(None, vec![port(2375, "::1", Some(1)), port(2376, "::1", Some(2))], "172.17.0.2"),
                Some("[::1]:2"),
            ),
            (
                host(None, vec![port(2376, "", None), port(2375, "10.0.0.7", Some(1))], "172.17.0.2"),
                Some("10.0.0.7:1"),
            ),
            (host(None, vec![port(2376, "0.0.0.0", Some(3))], "172.17.0.2"), Some("far.example.com:3")),
        ] {
            let place = place(&Machine::parse("far.example.com").unwrap(), &host).unwrap();
            assert_eq!(place.map(|place| place.to_string()).as_deref(), expected, "{host:?}");
        }
        for bad in ["-oProxyCommand=id", "1.2.3.4 -oX", "fe80::1%eth0", "vic.example.com"] {
            let machine = Machine::parse("far.example.com").unwrap();
            assert!(place(&machine, &host(None, exposed(), bad)).is_err(), "{bad}");
            assert!(place(&machine, &host(None, vec![port(2376, bad, Some(1))], "")).is_err(), "{bad}");
        }
    }

    #[test]
    fn health_is_what_the_engine_says() {
        for (status, expected) in [
            ("Up 5 seconds (healthy)", Some("healthy")),
            ("Up 1 second (health: starting)", Some("starting")),
            ("Up 3 hours (unhealthy)", Some("unhealthy")),
            ("Up 3 hours", None),
            ("Exited (0) 2 minutes ago", None),
            ("Up 2 hours (Paused)", None),
        ] {
            assert_eq!(health(status), expected, "{status}");
        }
    }
}
