//! What a VIC endpoint routes, and what becomes of it: data.
//!
//! The routes are those of Docker 1.13's routers that VIC registers (`cmd/docker/main.go`, `setAPIRoutes`): image, container,
//! volume, network, system, swarm, checkpoint and plugin. The builder's is not among them.

use super::source::{self, Source};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// The real engine's answer is VIC's.
    Pass,
    /// 500: `PRODUCT does not yet implement METHOD`.
    Lacks(&'static str, Source),
    /// This status and this text, in which `{}` stands for the name.
    Refuses(u16, &'static str, Source),
    Ping,
    Version,
    Info,
    Events,
    ListContainers,
    Inspect,
    Create,
    ExecCreate,
    ListImages,
    /// A pull goes through, an import does not.
    Pull,
    /// A load: refused in its stream, under a status that says 200.
    Load,
    Commit,
    VolumeCreate,
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// `{}` stands for a name, which may have slashes in it.
    pub(super) path: &'static str,
    /// The query parameters that are read; whatever else is there has no effect.
    pub(super) query: &'static [&'static str],
    pub(super) does: Does,
}

const fn route(
    method: &'static str,
    path: &'static str,
    query: &'static [&'static str],
    does: Does,
) -> Route {
    Route { method, path, query, does }
}

const fn lacks(method: &'static str, path: &'static str, what: &'static str, source: Source) -> Route {
    route(method, path, ANY, Does::Lacks(what, source.at(what)))
}

/// Of a request that is refused, the parameters do not matter.
const ANY: &[&str] = &["*"];

use Does::{Pass, Refuses};
use source::{ARCHIVE, CHECKPOINT, CONTAINER, IMAGE, NETWORK, PLUGINS, SWARM, SYSTEM, VOLUME};

const NO_PLUGINS: Does =
    Refuses(500, "vSphere Integrated Containers does not yet support plugins", PLUGINS.at("PluginBackend"));
const NO_SWARM: Does = Refuses(404, "Docker Swarm is not yet supported", SWARM.at("Inspect and the lists"));
const NO_SWARM_EITHER: Does = Refuses(
    500,
    "vSphere Integrated Containers does not yet support Docker Swarm",
    SWARM.at("Init and the rest"),
);

/// The first that matches counts.
pub(super) const ROUTES: &[Route] = &[
    // system
    route("GET", "/_ping", &[], Does::Ping),
    route("GET", "/version", &[], Does::Version),
    route("GET", "/info", &[], Does::Info),
    route("GET", "/events", &["since", "until", "filters"], Does::Events),
    route("POST", "/auth", &[], Pass),
    lacks("GET", "/system/df", "SystemDiskUsage", SYSTEM),
    // containers
    route(
        "GET",
        "/containers/json",
        &["all", "size", "limit", "since", "before", "filters"],
        Does::ListContainers,
    ),
    route("POST", "/containers/create", &["name"], Does::Create),
    lacks("POST", "/containers/prune", "ContainersPrune", CONTAINER),
    lacks("GET", "/containers/{}/export", "ContainerExport", ARCHIVE),
    lacks("GET", "/containers/{}/top", "ContainerTop", CONTAINER),
    lacks("POST", "/containers/{}/pause", "ContainerPause", CONTAINER),
    lacks("POST", "/containers/{}/unpause", "ContainerUnpause", CONTAINER),
    lacks("POST", "/containers/{}/update", "ContainerUpdate", CONTAINER),
    lacks("GET", "/containers/{}/checkpoints", "checkpointing", CHECKPOINT),
    lacks("POST", "/containers/{}/checkpoints", "checkpointing", CHECKPOINT),
    route("HEAD", "/containers/{}/archive", &["path"], Pass),
    route("GET", "/containers/{}/archive", &["path"], Pass),
    route("PUT", "/containers/{}/archive", &["path", "noOverwriteDirNonDir"], Pass),
    route("GET", "/containers/{}/changes", &[], Pass),
    route("GET", "/containers/{}/json", &["size"], Does::Inspect),
    route(
        "GET",
        "/containers/{}/logs",
        &["follow", "stdout", "stderr", "since", "timestamps", "tail", "details"],
        Pass,
    ),
    route("GET", "/containers/{}/stats", &["stream"], Pass),
    route("GET", "/containers/{}/attach/ws", &["logs", "stream", "detachKeys"], Pass),
    route(
        "POST",
        "/containers/{}/attach",
        &["detachKeys", "stdin", "stdout", "stderr", "logs", "stream"],
        Pass,
    ),
    route("POST", "/containers/{}/kill", &["signal"], Pass),
    route("POST", "/containers/{}/restart", &["t"], Pass),
    route("POST", "/containers/{}/start", &["checkpoint", "checkpoint-dir"], Pass),
    route("POST", "/containers/{}/stop", &["t"], Pass),
    route("POST", "/containers/{}/wait", &[], Pass),
    route("POST", "/containers/{}/resize", &["h", "w"], Pass),
    route("POST", "/containers/{}/rename", &["name"], Pass),
    route("POST", "/containers/{}/exec", &[], Does::ExecCreate),
    route("DELETE", "/containers/{}", &["force", "v", "link"], Pass),
    route("GET", "/exec/{}/json", &[], Pass),
    route("POST", "/exec/{}/start", &[], Pass),
    route("POST", "/exec/{}/resize", &["h", "w"], Pass),
    // images
    route("GET", "/images/json", &["filters", "filter", "all"], Does::ListImages),
    lacks("GET", "/images/search", "SearchRegistryForImages", IMAGE),
    lacks("GET", "/images/get", "ExportImage", IMAGE),
    lacks("GET", "/images/{}/get", "ExportImage", IMAGE),
    lacks("GET", "/images/{}/history", "ImageHistory", IMAGE),
    route("GET", "/images/{}/json", &[], Pass),
    route(
        "POST",
        "/commit",
        &["container", "pause", "repo", "tag", "author", "comment", "changes"],
        Does::Commit,
    ),
    route("POST", "/images/load", ANY, Does::Load),
    route(
        "POST",
        "/images/create",
        &["fromImage", "fromSrc", "repo", "tag", "message", "changes"],
        Does::Pull,
    ),
    lacks("POST", "/images/prune", "ImagesPrune", IMAGE),
    lacks("POST", "/images/{}/push", "PushImage", IMAGE),
    route("POST", "/images/{}/tag", &["repo", "tag"], Pass),
    route("DELETE", "/images/{}", &["force", "noprune"], Pass),
    // volumes
    route("GET", "/volumes", &["filters"], Pass),
    route("GET", "/volumes/{}", &[], Pass),
    route("POST", "/volumes/create", &[], Does::VolumeCreate),
    lacks("POST", "/volumes/prune", "VolumesPrune", VOLUME),
    route("DELETE", "/volumes/{}", &["force"], Pass),
    // networks
    route("GET", "/networks", &["filters"], Pass),
    route("GET", "/networks/", &["filters"], Pass),
    route("GET", "/networks/{}", &[], Pass),
    route("POST", "/networks/create", &[], Pass),
    lacks("POST", "/networks/prune", "NetworksPrune", NETWORK),
    route("POST", "/networks/{}/connect", &[], Pass),
    lacks("POST", "/networks/{}/disconnect", "DisconnectContainerFromNetwork", NETWORK),
    route("DELETE", "/networks/{}", &[], Pass),
    // plugins
    route("GET", "/plugins/{}/json", ANY, Refuses(404, "plugin {} not found", PLUGINS.at("Inspect"))),
    route("GET", "/plugins", ANY, NO_PLUGINS),
    route("GET", "/plugins/privileges", ANY, NO_PLUGINS),
    route("POST", "/plugins/{}", ANY, NO_PLUGINS),
    route("DELETE", "/plugins/{}", ANY, NO_PLUGINS),
    // swarm
    route("GET", "/swarm", ANY, NO_SWARM),
    route("GET", "/services", ANY, NO_SWARM),
    route("GET", "/nodes", ANY, NO_SWARM),
    route("GET", "/tasks", ANY, NO_SWARM),
    route("GET", "/secrets", ANY, NO_SWARM_EITHER),
    route("POST", "/swarm/{}", ANY, NO_SWARM_EITHER),
    route("POST", "/services/{}", ANY, NO_SWARM_EITHER),
    route("POST", "/secrets/{}", ANY, NO_SWARM_EITHER),
    // The builder's routes: there is a backend for them in VIC, which nothing registers.
    route("POST", "/build", ANY, Refuses(404, NO_PAGE, source::MAIN.at("setAPIRoutes"))),
];

/// What every path is answered with that no router knows.
pub(super) const NO_PAGE: &str = "page not found";

/// The route of a request, and the name in its path.
pub(super) fn find<'a>(method: &str, path: &'a str) -> Option<(&'static Route, &'a str)> {
    let mut routes = ROUTES.iter().filter(|route| route.method == method);
    routes.find_map(|route| name_in(route.path, path).map(|name| (route, name)))
}

/// The name for which a pattern has its braces; empty where it has none.
fn name_in<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    match pattern.split_once("{}") {
        None => (pattern == path).then_some(""),
        Some((before, after)) => {
            let name = path.strip_prefix(before)?.strip_suffix(after)?;
            (!name.is_empty()).then_some(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_route() {
        for (method, path, expected) in [
            ("GET", "/containers/a/json", Some("/containers/{}/json")),
            ("GET", "/containers/json", Some("/containers/json")),
            ("GET", "/images/host.example:5000/a/b:1/json", Some("/images/{}/json")),
            ("POST", "/containers/create", Some("/containers/create")),
            ("POST", "/networks/n/disconnect", Some("/networks/{}/disconnect")),
            ("GET", "/containers//json", None),
            ("POST", "/containers/a/json", None),
            ("POST", "/session", None),
            ("POST", "/build/prune", None),
            ("HEAD", "/_ping", None),
        ] {
            assert_eq!(find(method, path).map(|(route, _)| route.path), expected, "{method} {path}");
        }
    }

    /// A route behind one that matches the same requests would be a dead line of this table.
    #[test]
    fn every_route_is_reached() {
        for route in ROUTES {
            let path = route.path.replace("{}", "name");
            let found = find(route.method, &path).map(|(found, _)| found.path);
            assert_eq!(found, Some(route.path), "{} {path}", route.method);
        }
    }
}
