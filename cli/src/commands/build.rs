//! `dind build`: images of hosts, from what is inside this binary.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{RemoveContainerOptionsBuilder, TagImageOptionsBuilder};
use clap::Args;
use dind_contract::labels;

use crate::assets::{self, Flavour};
use crate::bake::names::check_tag;
use crate::build::bootstrap;
use crate::build::context::{File, archive};
use crate::build::stream::{self, Build as Stream};
use crate::endpoint::{self, ContainerId, Endpoint, ImageId, Kind};
use crate::failure::{Failure, Result};
use crate::options::units;
use crate::progress::Progress;
use crate::signals::{Interrupt, interrupted};
use crate::{Context, image, output, owner, ready};

/// How long a registry may take to give a base before it counts as not there.
const PULL: Duration = Duration::from_secs(300);

/// Build the image of a host, from anywhere: all that it needs is in this binary
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// System of the host: debian, photon or centos
    #[arg(value_name = "FLAVOUR", default_value = assets::DEBIAN, value_parser = assets::flavour)]
    pub(crate) flavour: Flavour,
    /// Also the image with sshd
    #[arg(long)]
    pub(crate) ssh: bool,
    /// Also the images that run a Compose application: dind-compose-dynamic and dind-compose-static
    #[arg(long)]
    pub(crate) compose: bool,
    /// Name of the image; the one with sshd has -ssh after it [default: dind-FLAVOUR]
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Option<String>,
    /// Image to begin with [default: the distribution's own]
    #[arg(long, value_name = "IMAGE", conflicts_with = "bootstrap")]
    pub(crate) base: Option<String>,
    /// Release of the distribution [default: trixie of debian, 5.0 of photon, 10 of centos]
    #[arg(long, value_name = "NAME")]
    pub(crate) suite: Option<String>,
    /// Make the base from Debian's packages, with mmdebstrap, where no registry gives it
    #[arg(long)]
    pub(crate) bootstrap: bool,
    /// Set an argument of the Dockerfile: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE", value_parser = units::variable)]
    pub(crate) build_arg: Vec<String>,
    /// Build everything again
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Print nothing but the images' ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Does it.
pub(crate) async fn run(context: &Context, build: Build) -> Result<()> {
    if assets::INIT.is_empty() {
        return Err(Failure::unavailable(
            "this dind was built without dind-init, so it has nothing to put into an image",
            "use the one that ./quickstart --build makes, or build it with DIND_INIT=FILE set to a static dind-init",
        ));
    }
    if let Some(tag) = &build.tag {
        check_tag(tag)?;
    }
    let progress = context.progress(build.quiet);
    let mut interrupt = Interrupt::listen()?;
    let endpoint = tokio::select! {
        endpoint = context.connect() => endpoint?,
        number = interrupt.caught() => return Err(interrupted(number, "nothing was made")),
    };
    if endpoint.kind == Kind::Vic {
        return Err(Failure::unavailable(
            "VIC does not build images",
            "build on a Docker engine, push the image to a registry that VIC reaches, and: dind up --image REGISTRY/NAME",
        ));
    }
    let builder = Builder {
        endpoint: &endpoint,
        wish: &build,
        progress: &progress,
        lines: context.plain() && !build.quiet,
        newest: RefCell::new(None),
        asked: RefCell::new(None),
    };
    // The endpoint ends a build whose client goes away, and removes its container (forcerm).
    let text = tokio::select! {
        built = builder.images() => built?,
        number = interrupt.caught() => {
            progress.clear();
            // What it has made until here has no name, and nobody would know what it is.
            builder.abandon().await;
            return Err(interrupted(number, "what it had made is removed"));
        }
    };
    output::print(&text)
}

/// One call of `dind build`.
struct Builder<'a> {
    endpoint: &'a Endpoint,
    wish: &'a Build,
    progress: &'a Progress,
    /// Whether each line of the build is printed.
    lines: bool,
    /// The newest image that was made, and may have no name yet.
    newest: RefCell<Option<ImageId>>,
    /// The container that is asked for its engine's version.
    asked: RefCell<Option<ContainerId>>,
}

impl Builder<'_> {
    /// Builds the images that were asked for; what to print.
    async fn images(&self) -> Result<String> {
        let flavour = self.wish.flavour;
        let release = self.wish.suite.as_deref().unwrap_or(flavour.release);
        let base = base(self.endpoint, self.wish, release, self.progress).await?;
        let tag = self.wish.tag.clone().unwrap_or_else(|| format!("dind-{}", flavour.name));
        let mut arguments = HashMap::from([
            ("BASE".to_owned(), base),
            ("SUITE".to_owned(), release.to_owned()),
            ("VERSION".to_owned(), assets::VERSION.to_owned()),
            ("REVISION".to_owned(), assets::REVISION.to_owned()),
        ]);
        for argument in &self.wish.build_arg {
            if let Some((name, value)) = units::with_value(argument) {
                arguments.insert(name.to_owned(), value);
            }
        }
        let context = archive(&[
            File { path: "Dockerfile", content: flavour.dockerfile.as_bytes(), mode: 0o644 },
            File { path: "dind-init", content: assets::INIT, mode: 0o755 },
        ])?;
        // Names are given when everything is built: until then those that were there stay what they were.
        let host = self.labelled(&tag, context, arguments).await?;
        let mut built = vec![(tag.clone(), host.clone())];
        if self.wish.ssh {
            let context = archive(&[
                File { path: "Dockerfile", content: flavour.ssh.as_bytes(), mode: 0o644 },
                File { path: "sshd_config", content: assets::SSHD_CONFIG.as_bytes(), mode: 0o644 },
            ])?;
            built.push(self.on_top(&host, beside(&tag, "ssh"), context).await?);
        }
        if self.wish.compose {
            for (kind, dockerfile) in assets::APPLIANCES {
                let context =
                    archive(&[File { path: "Dockerfile", content: dockerfile.as_bytes(), mode: 0o644 }])?;
                built.push(self.on_top(&host, appliance(&tag, kind), context).await?);
            }
        }
        let mut text = String::new();
        for (name, id) in built {
            self.name(&name, &id).await?;
            text.push_str(&if self.wish.quiet {
                format!("{id}\n")
            } else {
                format!("{name} is built ({id})\n")
            });
        }
        Ok(text)
    }

    /// Builds an image that begins with the host's; its name and id.
    async fn on_top(&self, host: &ImageId, name: String, context: Vec<u8>) -> Result<(String, ImageId)> {
        let arguments = HashMap::from([("BASE".to_owned(), host.to_string())]);
        let built = self.build(&name, context, arguments, HashMap::new(), true).await?;
        Ok((name, built))
    }

    /// Builds the image, asks it for its engine's version, and builds it again with that on a label, which the cache makes cheap.
    async fn labelled(
        &self,
        tag: &str,
        context: Vec<u8>,
        arguments: HashMap<String, String>,
    ) -> Result<ImageId> {
        let built = self.build(tag, context.clone(), arguments.clone(), HashMap::new(), true).await?;
        match self.engine(&built).await? {
            Some(engine) => {
                let labels = HashMap::from([(labels::ENGINE.to_owned(), engine)]);
                self.build(tag, context, arguments, labels, false).await
            }
            None => Ok(built),
        }
    }

    /// Gives an image its name, and removes the one that had it.
    async fn name(&self, name: &str, id: &ImageId) -> Result<()> {
        let before = self::id(self.endpoint, name).await;
        let (repository, tag) = split(name);
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        self.endpoint.docker.tag_image(id.as_str(), Some(options)).await.map_err(|error| {
            Failure::new(
                format!("the image {id} cannot be called {name}: {}", endpoint::cause(&error)),
                "give another name with --tag",
            )
        })?;
        if let Some(before) = before
            && self::id(self.endpoint, name).await.as_ref() != Some(&before)
        {
            forget(self.endpoint, &before).await;
        }
        Ok(())
    }

    async fn build(
        &self,
        tag: &str,
        context: Vec<u8>,
        arguments: HashMap<String, String>,
        labels: HashMap<String, String>,
        first: bool,
    ) -> Result<ImageId> {
        let build = Stream {
            tag,
            context,
            arguments,
            labels,
            no_cache: first && self.wish.no_cache,
            newest: &self.newest,
            lines: first && self.lines,
        };
        stream::run(self.endpoint, build, self.progress).await
    }

    /// The version of the engine in an image, by asking it; `None` where it does not say.
    async fn engine(&self, image: &ImageId) -> Result<Option<String>> {
        let docker = &self.endpoint.docker;
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            entrypoint: Some(vec!["dockerd".to_owned(), "--version".to_owned()]),
            network_disabled: Some(true),
            labels: Some(HashMap::from([(labels::OWNER.to_owned(), owner::this_process())])),
            host_config: Some(HostConfig::default()),
            ..Default::default()
        };
        let Ok(created) = docker.create_container(None, body).await else { return Ok(None) };
        let id: ContainerId = self.endpoint.parse(&created.id)?;
        self.asked.replace(Some(id.clone()));
        let asked = async {
            docker.start_container(id.as_str(), None).await.ok()?;
            self.endpoint.end_of(&id).await;
            let lines = ready::last_lines(self.endpoint, &id, "1").await;
            // Docker version 26.1.5+dfsg1, build a72d7cd
            let version = lines.first()?.strip_prefix("Docker version ")?.split(['+', ',', ' ']).next()?;
            Some(version.to_owned())
        }
        .await;
        self.abandon_container().await;
        Ok(asked)
    }

    /// Removes what a build that was cut off has made.
    async fn abandon(&self) {
        self.abandon_container().await;
        if let Some(newest) = self.newest.take() {
            abandon(self.endpoint, &newest).await;
        }
    }

    async fn abandon_container(&self) {
        if let Some(id) = self.asked.take() {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            let _ = self.endpoint.docker.remove_container(id.as_str(), Some(options)).await;
        }
    }
}

/// The id of the image that has this name.
async fn id(endpoint: &Endpoint, tag: &str) -> Option<ImageId> {
    endpoint.docker.inspect_image(tag).await.ok()?.id?.parse().ok()
}

/// Removes the newest image of a build that was cut off, as soon as the endpoint has ended the step that stands on it.
async fn abandon(endpoint: &Endpoint, newest: &ImageId) {
    for _ in 0..100 {
        forget(endpoint, newest).await;
        if id(endpoint, newest.as_str()).await.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Removes an image that has no name. One that is used stays.
async fn forget(endpoint: &Endpoint, image: &ImageId) {
    let names = endpoint.docker.inspect_image(image.as_str()).await.ok().and_then(|image| image.repo_tags);
    if names.is_some_and(|names| names.is_empty()) {
        let options = None::<bollard::query_parameters::RemoveImageOptions>;
        let _ = endpoint.docker.remove_image(image.as_str(), options, None).await;
    }
}

/// What the Dockerfile begins with: what was named, what is there, what a registry gives, what Debian's packages make.
async fn base(endpoint: &Endpoint, build: &Build, release: &str, progress: &Progress) -> Result<String> {
    if let Some(base) = &build.base {
        return Ok(base.clone());
    }
    let wanted = (build.flavour.base)(release);
    let debian = build.flavour.name == assets::DEBIAN;
    if build.bootstrap && !debian {
        return Err(Failure::usage(
            format!(
                "--bootstrap makes a base of Debian's packages, and {} is another system",
                build.flavour.name
            ),
            format!("leave it out, and let the endpoint reach a registry that has {wanted}"),
        ));
    }
    for there in [Some(wanted.clone()), debian.then(|| bootstrap::name(release))].into_iter().flatten() {
        if image::has(endpoint, &there).await? {
            return Ok(there);
        }
    }
    progress.begin(&format!("pulling {wanted}"), &format!("{wanted} is pulled"));
    let pulled = tokio::time::timeout(PULL, image::fetch(endpoint, &wanted, progress)).await;
    let cause = match pulled {
        Ok(Ok(())) => {
            progress.end();
            return Ok(wanted);
        }
        Ok(Err(cause)) => cause,
        Err(_) => format!("nothing came within {} s", PULL.as_secs()),
    };
    progress.clear();
    if build.bootstrap {
        progress.note(&format!("{wanted} cannot be pulled: {cause}"));
        return bootstrap::make(endpoint, release, progress).await;
    }
    let other = if debian {
        "or make one from Debian's packages with mmdebstrap: add --bootstrap; or begin with another image: --base IMAGE"
    } else {
        "or begin with another image of that distribution: --base IMAGE"
    };
    Err(Failure::unavailable(
        format!("the base image {wanted} is not on {} and cannot be pulled: {cause}", endpoint.address),
        format!("let the endpoint reach a registry that has it; {other}"),
    ))
}

/// A name of an image and its tag.
fn split(image: &str) -> (&str, &str) {
    // A colon before the last slash belongs to a port.
    let name = image.rfind('/').map_or(0, |slash| slash + 1);
    match image.get(name..).and_then(|rest| rest.find(':')) {
        Some(colon) => {
            (image.get(..name + colon).unwrap_or(image), image.get(name + colon + 1..).unwrap_or("latest"))
        }
        None => (image, "latest"),
    }
}

/// The name of another image beside one: `NAME-ssh`, `NAME-ssh:TAG`.
fn beside(image: &str, what: &str) -> String {
    match split(image) {
        (name, "latest") if !image.ends_with(":latest") => format!("{name}-{what}"),
        (name, tag) => format!("{name}-{what}:{tag}"),
    }
}

/// The name of an appliance's image. That of the usual host stands for every flavour.
fn appliance(host: &str, kind: &str) -> String {
    match host {
        "dind-debian" => format!("dind-compose-{kind}"),
        host => beside(host, &format!("compose-{kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_image_beside() {
        for (image, expected) in [
            ("dind-debian", "dind-debian-ssh"),
            ("a/b:1", "a/b-ssh:1"),
            ("h:5000/a", "h:5000/a-ssh"),
            ("h:5000/a:t", "h:5000/a-ssh:t"),
        ] {
            assert_eq!(beside(image, "ssh"), expected);
        }
        assert_eq!(appliance("dind-debian", "static"), "dind-compose-static");
        assert_eq!(appliance("a/b:1", "static"), "a/b-compose-static:1");
    }
}
