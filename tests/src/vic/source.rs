//! Where VIC's own source or documentation says what the stand-in does.

use std::fmt;

/// A place in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    repository: &'static str,
    path: &'static str,
    /// The commit whose text was read; empty where a later text was read of which no commit was known.
    commit: &'static str,
    place: &'static str,
}

impl Source {
    const fn of(repository: &'static str, path: &'static str, commit: &'static str) -> Self {
        Self { repository, path, commit, place: "" }
    }

    /// The same file, at this function or heading.
    pub(super) const fn at(self, place: &'static str) -> Self {
        Self { place, ..self }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.repository, self.path)?;
        if !self.commit.is_empty() {
            write!(f, " at {}", &self.commit[..8])?;
        }
        write!(f, ", {}", self.place)
    }
}

const VIC: &str = "vmware/vic";
/// A fork that was made when VIC was no longer developed, and the only one whose copy of Docker 1.13 could be read.
const FORK: &str = "hashicorp/vic";
const MANUAL: &str = "vmware/vic-product";

pub(super) const MAIN: Source =
    Source::of(VIC, "cmd/docker/main.go", "3ab3808809b503e671d56a5228def2f128bbc76a");
pub(super) const ERRORS: Source =
    Source::of(VIC, "lib/apiservers/engine/errors/errors.go", "293945274bbcaa5be7f138c19f36d3610a69e129");
pub(super) const CONTAINER: Source = Source::of(
    VIC,
    "lib/apiservers/engine/backends/container.go",
    "00489791349176ee80f4b7b51e5a027706a6fc96",
);
pub(super) const ARCHIVE: Source =
    Source::of(VIC, "lib/apiservers/engine/backends/archive.go", "7b54d345055c9135df17e25c217473ae0115263c");
pub(super) const COMMIT: Source =
    Source::of(VIC, "lib/apiservers/engine/backends/commit.go", "227e7da63477931a46f31b539a1359d3430c2b6d");
pub(super) const IMAGE: Source =
    Source::of(VIC, "lib/apiservers/engine/backends/image.go", "d3f0d0b4f9a227cd971e9e72e44a72ef5811e9e1");
pub(super) const SYSTEM: Source =
    Source::of(VIC, "lib/apiservers/engine/backends/system.go", "4c7c9a1b5517f24a0e1a1cd75002ea8e184a1942");
pub(super) const VOLUME: Source = Source::of(VIC, "lib/apiservers/engine/backends/volume.go", "");
pub(super) const PLUGINS: Source =
    Source::of(VIC, "lib/apiservers/engine/backends/plugins.go", "0aa6d9a539b1b9d375b639a2656b96b262e738db");
pub(super) const SWARM: Source =
    Source::of(VIC, "lib/apiservers/engine/backends/swarm.go", "023634cef0d31866a13fc9bae483108ea5ae9b81");
pub(super) const CHECKPOINT: Source = Source::of(
    VIC,
    "lib/apiservers/engine/backends/checkpoint.go",
    "64f6dcc83a65dcea771cdf0e0ea6286b67eaaf78",
);
pub(super) const FILTERS: Source = Source::of(
    VIC,
    "lib/apiservers/engine/backends/filter/validation.go",
    "6ce2ac044f5816e06006784363d4efefc7f7926b",
);
pub(super) const CONTAINER_PROXY: Source = Source::of(
    VIC,
    "lib/apiservers/engine/proxy/container_proxy.go",
    "54c0755857e754fe9471b8014936ae1506ac5c35",
);
pub(super) const STORAGE_PROXY: Source = Source::of(
    VIC,
    "lib/apiservers/engine/proxy/storage_proxy.go",
    "cd6a3f2144882738c2ae9a96c487971755c02766",
);
pub(super) const NETWORK: Source =
    Source::of(FORK, "lib/apiservers/engine/backends/network.go", "b641d315c4f902e302582b071f4b6624757f49b9");
pub(super) const SERVER: Source = Source::of(
    FORK,
    "vendor/github.com/docker/docker/api/server/server.go",
    "6208981b1101ac4bf3cf803df270978d1cf1e524",
);
pub(super) const VERSIONS: Source = Source::of(
    FORK,
    "vendor/github.com/docker/docker/api/server/middleware/version.go",
    "6208981b1101ac4bf3cf803df270978d1cf1e524",
);
pub(super) const ROUTES: Source = Source::of(
    FORK,
    "vendor/github.com/docker/docker/api/server/router/container/container_routes.go",
    "6208981b1101ac4bf3cf803df270978d1cf1e524",
);
pub(super) const IMAGE_ROUTES: Source = Source::of(
    FORK,
    "vendor/github.com/docker/docker/api/server/router/image/image_routes.go",
    "6208981b1101ac4bf3cf803df270978d1cf1e524",
);
pub(super) const HOST_CONFIG: Source = Source::of(
    FORK,
    "vendor/github.com/docker/docker/api/types/container/host_config.go",
    "6208981b1101ac4bf3cf803df270978d1cf1e524",
);
/// The trouble-shooting page of the releases that speak 1.25. Docker 1.13's own source, as VIC has it, lets newer paths
/// through ([`VERSIONS`]): the stand-in takes the stricter of the two for true.
pub(super) const VERSION_PAGE: Source = Source::of(MANUAL, "ts_docker_version_error.md", "");
pub(super) const COMMANDS: Source = Source::of(
    MANUAL,
    "docs/user_doc/vic_app_dev/container_operations.md",
    "040d1fb5fea3cdba1f901cd852f62f2b963eba71",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_says_where_to_look() {
        assert_eq!(
            CONTAINER.at("ContainerPause").to_string(),
            "vmware/vic lib/apiservers/engine/backends/container.go at 00489791, ContainerPause"
        );
        assert_eq!(
            VOLUME.at("VolumesPrune").to_string(),
            "vmware/vic lib/apiservers/engine/backends/volume.go, VolumesPrune"
        );
    }
}
