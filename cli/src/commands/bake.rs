//! `dind bake`: a Compose application and its images, sealed into one image.

use std::io;
use std::path::{Path, PathBuf};

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use clap::Args;
use dind_contract::{labels, store};
use serde_json::Value;

use crate::bake::appliance::{self, Plan, Sealed};
use crate::bake::baker::{self, Baker, TARGET};
use crate::bake::names::{self, Name};
use crate::bake::project::{self, FOLDER, Project};
use crate::bake::{images, pipe};
use crate::endpoint::{self, Endpoint, Kind};
use crate::failure::{Failure, Result};
use crate::launch;
use crate::options::HostOptions;
use crate::progress::Progress;
use crate::signals::{Interrupt, interrupted};
use crate::{Context, assets, output};

/// Where the request for a store lies in the host.
const REQUEST: &str = "/dind-bake.json";

/// Seal a Compose application and its images into one image, an appliance that boots as exactly that, with no network
///
/// The folder of the Compose file is sent to a host that lives for this bake; Compose reads the file there. Images come from archives, from
/// the endpoint's own engine, or from a registry, in this order; what has a `build:` is built. Each is pinned to what it is now. The
/// variables of the file stay variables: `docker run -e NAME=VALUE` and `.env` fill them in when the appliance starts.
///
/// What was pulled, built and sealed is kept in two volumes, so that the next bake does only what is new.
#[derive(Debug, Args)]
pub(crate) struct Bake {
    /// The Compose file
    #[arg(value_name = "FILE", default_value = "docker-compose.yml")]
    pub(crate) file: PathBuf,
    /// Name of the appliance's image
    #[arg(short, long, value_name = "NAME[:TAG]", required = true)]
    pub(crate) tag: String,
    /// An archive with images, of docker save or in the OCI's layout; can be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) image_archive: Vec<PathBuf>,
    /// Platform of the appliance and of its images, such as linux/arm64 [default: that of the host's image]
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub(crate) platform: Option<String>,
    /// Volume in which what was pulled and built is kept; what was sealed is in NAME-store
    #[arg(long, value_name = "NAME", default_value = "dind-bake", conflicts_with = "no_cache")]
    pub(crate) cache: String,
    /// Begin with nothing, and keep nothing
    #[arg(long)]
    pub(crate) no_cache: bool,
    #[command(flatten)]
    pub(crate) host: HostOptions,
    /// Print nothing but the image's id
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Does it.
pub(crate) async fn run(context: &Context, bake: Bake) -> Result<()> {
    let (file, folder) = find(&bake.file)?;
    names::check_tag(&bake.tag)?;
    for archive in &bake.image_archive {
        images::open(archive)?;
    }
    let progress = context.progress(bake.quiet);
    let mut interrupt = Interrupt::listen()?;
    let nothing = "nothing was made";
    let endpoint = tokio::select! {
        endpoint = context.connect() => endpoint?,
        number = interrupt.caught() => return Err(interrupted(number, nothing)),
    };
    if endpoint.kind == Kind::Vic {
        return Err(Failure::unavailable(
            "VIC neither saves nor loads images, so nothing can be baked there",
            "bake on a Docker engine, push the image to a registry that VIC reaches, and: dind up --image REGISTRY/NAME",
        ));
    }
    let cache = if bake.no_cache { "" } else { bake.cache.as_str() };
    let prepared = async {
        let request = baker::request(&endpoint, &bake.host, cache, &progress).await?;
        Ok((request, platform(&endpoint, &bake).await?))
    };
    let (request, platform) = tokio::select! {
        prepared = prepared => prepared?,
        number = interrupt.caught() => return Err(interrupted(number, nothing)),
    };
    let made = baker::create(&endpoint, cache, request, &progress, &mut interrupt).await?;
    let work = Work {
        endpoint: &endpoint,
        wish: &bake,
        file: &file,
        folder: &folder,
        platform: &platform,
        progress: &progress,
        lines: context.plain() && !bake.quiet,
    };
    let baked = tokio::select! {
        baked = work.bake(&made) => baked,
        number = interrupt.caught() => Err(interrupted(number, "the host that baked is removed; what it had pulled is kept for the next bake")),
    };
    progress.clear();
    if !cache.is_empty() {
        // Left in order, so that the next one starts on data that needs no check.
        progress.begin("keeping what was pulled and sealed for the next bake", "");
        let _ = endpoint.docker.stop_container(made.id.as_str(), None).await;
        progress.clear();
    }
    let removed = launch::discard(&endpoint, &made, &mut interrupt).await;
    let sealed = baked?;
    removed?;
    if bake.quiet {
        return output::print(&format!("{}\n", sealed.id));
    }
    output::print(&format!(
        "{tag} is baked ({id})\nRun it:      dind up --image {tag}\nSee inside:  dind inspect {tag}\n",
        tag = bake.tag,
        id = sealed.id
    ))
}

/// The Compose file and its folder.
fn find(file: &Path) -> Result<(PathBuf, PathBuf)> {
    let is_folder = file.is_dir();
    let candidates = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
    let found = if is_folder {
        candidates.iter().map(|name| file.join(name)).find(|path| path.is_file())
    } else {
        Some(file.to_owned())
    };
    let missing = |e: &dyn std::fmt::Display| {
        Failure::usage(
            format!("cannot read the Compose file {}: {e}", file.display()),
            "name the file: dind bake FILE -t NAME",
        )
    };
    let found = found.ok_or_else(|| missing(&"the folder has none"))?;
    std::fs::File::open(&found)
        .and_then(|file| file.metadata())
        .map_err(|e| missing(&e))
        .and_then(|it| if it.is_file() { Ok(()) } else { Err(missing(&"it is no file")) })?;
    let path = found.canonicalize().map_err(|e| missing(&e))?;
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    if folder == Path::new("/") {
        return Err(Failure::usage(
            format!("{} lies in /, and the whole of its folder would be sent", found.display()),
            "put it into a folder of its own, with what it refers to",
        ));
    }
    Ok((PathBuf::from(path.file_name().unwrap_or_default()), folder))
}

/// The platform of the appliance: that of the image that it is made on.
async fn platform(endpoint: &Endpoint, bake: &Bake) -> Result<String> {
    let image = bake.host.image();
    let found = endpoint.docker.inspect_image(&image).await.map_err(|error| {
        Failure::new(
            format!("the image {image} cannot be looked at: {}", endpoint::cause(&error)),
            bake.host.build_line(),
        )
    })?;
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    if !labels.contains_key(labels::FLAVOUR) {
        return Err(Failure::usage(
            format!("{image} is not a host's image: it has no label {}", labels::FLAVOUR),
            "bake on the image of a host, such as dind-debian",
        ));
    }
    if labels.contains_key(labels::STORE) {
        return Err(Failure::usage(
            format!("{image} is a sealed appliance already"),
            "bake on the image of a host, such as dind-debian",
        ));
    }
    if assets::is_appliance(&labels) {
        return Err(Failure::usage(
            format!("{image} is an appliance, which looks for an application of its own when it starts"),
            "bake on the image of a host, such as dind-debian",
        ));
    }
    let is = format!(
        "{}/{}",
        found.os.unwrap_or_else(|| "linux".to_owned()),
        found.architecture.unwrap_or_default()
    );
    match &bake.platform {
        Some(wanted) if !wanted.starts_with(&is) => Err(Failure::unavailable(
            format!("the image {image} on {} is for {is}, and not for {wanted}", endpoint.address),
            "bake on an endpoint of that platform, or name an image for it with --image",
        )),
        wanted => Ok(wanted.clone().unwrap_or(is)),
    }
}

/// One call of `dind bake`.
struct Work<'a> {
    endpoint: &'a Endpoint,
    wish: &'a Bake,
    /// Name of the Compose file in its folder.
    file: &'a Path,
    folder: &'a Path,
    platform: &'a str,
    progress: &'a Progress,
    /// Whether each line of a build is printed.
    lines: bool,
}

impl Work<'_> {
    async fn bake(&self, made: &launch::Made) -> Result<Sealed> {
        let progress = self.progress;
        let baker = Baker::start(self.endpoint, made, &self.wish.host, progress).await?;
        let environment = project::environment();
        let project = self.read(&baker, &environment).await?;
        for warning in project.check(self.folder)? {
            progress.note(&warning);
        }
        let brought = images::archives(&baker, &self.wish.image_archive, self.platform, progress).await?;
        let services = project.services();
        if services.iter().any(|service| service.is_built) {
            images::bases(&baker, &project, self.folder, progress).await?;
            images::build(&baker, self.lines, environment, progress).await?;
        }
        let mut wanted: Vec<&Name> =
            services.iter().filter(|service| !service.is_built).map(|service| &service.image).collect();
        wanted.sort();
        wanted.dedup();
        for name in wanted {
            images::get(&baker, name, self.wish.host.pull, self.platform, &brought, progress).await?;
        }
        let request = images::request(&baker, &project, self.platform).await?;
        let manifest = self.seal(&baker, &request).await?;
        self.finish(&baker, &project, manifest).await
    }

    /// Sends the folder, and has Compose read the file.
    async fn read(&self, baker: &Baker<'_>, environment: &[String]) -> Result<Project> {
        let progress = self.progress;
        progress.begin(
            &format!("sending {}", self.folder.display()),
            &format!("{} is sent", self.folder.display()),
        );
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let archive = baker::pack(self.folder.to_owned(), FOLDER.trim_start_matches('/'), move |bytes| {
            let _ = told.send(bytes);
        });
        let mut sending = std::pin::pin!(baker.send("/", archive));
        let mut bytes = 0;
        loop {
            tokio::select! {
                sent = &mut sending => break sent?,
                Some(piece) = heard.recv() => {
                    bytes += piece;
                    progress.detail(&indicatif::HumanBytes(bytes).to_string());
                }
            }
        }
        progress.begin("reading the Compose file", &format!("{} is read", self.file.display()));
        let file = self.file.to_string_lossy();
        let config = |more: &'static [&'static str]| {
            let mut words = vec![
                "docker",
                "compose",
                "--project-directory",
                FOLDER,
                "--file",
                &file,
                "config",
                "--format",
                "json",
            ];
            words.extend(more);
            async move { baker.run(&words, Some(FOLDER), environment.to_vec(), |_| ()).await }
        };
        let filled = config(&[]).await?;
        let said: Vec<String> =
            filled.stderr.lines().map(|line| line.replace(&format!("{FOLDER}/"), "")).collect();
        if filled.code != Some(0) {
            return Err(Failure::usage(
                format!("{} is no good Compose file", self.wish.file.display()),
                "change the file where this says",
            )
            .with_details(said));
        }
        for line in said.iter().filter_map(|line| line.split("msg=").nth(1)) {
            progress.note(&format!("Compose: {}", line.trim_matches('"').replace("\\\"", "\"")));
        }
        let open = config(&["--no-interpolate"])
            .await?
            .ok("Compose cannot read the file without its variables", &baker.made.name)?;
        progress.end();
        Project::read(&filled.stdout, &open)
    }

    /// Makes the store; its manifest.
    async fn seal(&self, baker: &Baker<'_>, request: &Value) -> Result<String> {
        let progress = self.progress;
        baker.write(REQUEST.trim_start_matches('/'), request.to_string().as_bytes()).await?;
        progress.begin("sealing", "");
        let mut sealed = (0_u64, 0_u64, 0_u64);
        let began = std::time::Instant::now();
        let heard = |line: &str| {
            let Ok(said) = serde_json::from_str::<Value>(line) else { return };
            let number = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or_default();
            if said.get("layer").is_some() {
                let reused = said.get("reused").and_then(Value::as_bool) == Some(true);
                sealed = (number("of"), sealed.1 + number("bytes"), sealed.2 + u64::from(reused));
                progress.detail(&format!(
                    "layer {} of {}, {}",
                    number("number"),
                    number("of"),
                    indicatif::HumanBytes(sealed.1)
                ));
            }
        };
        let answer = baker
            .run(&["dind-init", "helper", "make-store", REQUEST, TARGET], None, Vec::new(), heard)
            .await?;
        if answer.code != Some(0) {
            return Err(failed(&answer.stderr));
        }
        progress.clear();
        let (layers, bytes, reused) = sealed;
        progress.took(
            &format!(
                "{layers} layers are sealed, {reused} of them from an earlier bake ({})",
                indicatif::HumanBytes(bytes)
            ),
            began.elapsed(),
        );
        let file = format!("{TARGET}/store/{}", store::MANIFEST);
        baker
            .run(&["cat", &file], None, Vec::new(), |_| ())
            .await?
            .ok("the store's manifest cannot be read", &baker.made.name)
    }

    /// Whether the endpoint's engine keeps images by itself and not in containerd, which wants every file that an archive names.
    async fn keeps_layers(&self) -> bool {
        let info = self.endpoint.docker.info().await.ok();
        let status = info.and_then(|info| info.driver_status);
        status.is_some_and(|status| {
            !status.iter().flatten().any(|word| word.contains("containerd.snapshotter"))
        })
    }

    /// Puts the image together, and has the endpoint load it.
    async fn finish(&self, baker: &Baker<'_>, project: &Project, manifest: String) -> Result<Sealed> {
        let progress = self.progress;
        progress.begin("making the image", &format!("the image {} is made", self.wish.tag));
        let plan = Plan {
            tag: Name::parse(&self.wish.tag).sealed,
            has_base: self.keeps_layers().await,
            manifest,
            compose: project.sealed(),
            folder: self.folder.to_owned(),
            carried: project.carried(self.folder),
        };
        let docker = &self.endpoint.docker;
        let options = DownloadFromContainerOptionsBuilder::new().path(&format!("{TARGET}/store")).build();
        let base_name = self.wish.host.image();
        let (pump_base, base) = pipe::incoming(docker.export_image(&base_name));
        let (pump_store, made) =
            pipe::incoming(docker.download_from_container(baker.made.id.as_str(), Some(options)));
        let (mut out, archive) = pipe::outgoing();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let making = tokio::task::spawn_blocking(move || {
            let buffered = io::BufWriter::with_capacity(256 * 1024, &mut out);
            let sealed = appliance::assemble(base, made, &plan, buffered, |bytes| {
                let _ = told.send(bytes);
            });
            if let Err(e) = &sealed {
                out.fail(e);
            }
            sealed
        });
        let loading = baker::load(self.endpoint, archive);
        let mut all = std::pin::pin!(async { tokio::join!(pump_base, pump_store, making, loading) });
        let mut bytes = 0;
        let ((), (), made, loaded) = loop {
            tokio::select! {
                all = &mut all => break all,
                Some(piece) = heard.recv() => {
                    bytes += piece;
                    progress.detail(&indicatif::HumanBytes(bytes).to_string());
                }
            }
        };
        let tag = &self.wish.tag;
        let help = |text: &str| match images::is_full(text) {
            true => {
                "make room where the endpoint keeps its images (docker system df), and for temporary files here"
            }
            false => "bake again; if it fails again, report this as a defect",
        };
        // Where the endpoint takes no more, what is written to it fails, too.
        if let Err(cause) = loaded {
            return Err(Failure::new(format!("the image {tag} cannot be loaded: {cause}"), help(&cause)));
        }
        let made = made.map_err(|e| io::Error::other(e.to_string())).and_then(|made| made);
        let sealed = made.map_err(|e| {
            Failure::new(format!("the image {tag} cannot be made: {e}"), help(&e.to_string()))
        })?;
        progress.end();
        if sealed.bundled > 0 {
            progress.note(&format!("an image has at most 125 layers: the {} smallest of the store share one, and versions of the appliance share it only as a whole", sealed.bundled));
        }
        Ok(sealed)
    }
}

/// What dind-init says of a store that cannot be made, as an error of ours.
fn failed(said: &str) -> Failure {
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let cause =
        lines.next().unwrap_or("the host that bakes ended").trim_start_matches("dind-init: ").to_owned();
    let help = lines.next().and_then(|line| line.trim().strip_prefix("help: ")).unwrap_or("bake again");
    if cause.contains("unrecognized subcommand") {
        return Failure::unavailable(
            "the host's image is older than this dind, and cannot make a store",
            "make it again: dind build",
        );
    }
    Failure::new(cause, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dind_init_says_is_passed_on() {
        let failure = failed("dind-init: the layer x cannot be sealed: y\n  help: make room\n");
        assert_eq!(failure.to_string(), "dind: the layer x cannot be sealed: y\n  help: make room");
    }
}
