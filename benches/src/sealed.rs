//! How fast the images of a sealed appliance are there, next to a host that loads them from a file and to one that pulls them.
//!
//! The images are made up: files of random bytes, a static busybox that answers HTTP, so many layers. One run bakes each, puts it into a
//! registry, and then starts the ways in turns, with the page cache emptied before and with it warm. Data roots are on an ext4 with a
//! journal that is made for the run, whatever this machine's own is: one without a journal makes files slowly for minutes after others
//! were removed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::container::Container;
use crate::driving::dind;
use crate::engine::{IMAGE, docker};
use crate::measure::{load, machine, milliseconds, say};
use crate::results::Machine;
use crate::statistics::{Spread, ratio};
use crate::ways::OPTIONS;

/// What the images are called inside.
const NAME: &str = "bench";

/// Sizes of image data in MB, and numbers of layers.
const CASES: [(u64, usize); 4] = [(100, 5), (1000, 5), (1000, 100), (4000, 5)];

/// Of the slow ways, more rounds than this say nothing more; of the largest images, one.
const SLOW_ROUNDS: u32 = 3;

/// How long an answer of the application may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// Everything one run measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    /// The day, as YYYY-MM-DD, in UTC.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) cases: Vec<Case>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Of image data.
    pub(crate) megabytes: u64,
    pub(crate) layers: usize,
    /// `dind bake`, with nothing kept from before.
    pub(crate) bake_ms: f64,
    /// The same again.
    pub(crate) bake_again_ms: f64,
    pub(crate) cold: Samples,
    pub(crate) warm: Samples,
}

/// The samples of the ways to have the images, one a round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Samples {
    /// A host without any image, for comparison.
    pub(crate) empty: Way,
    pub(crate) sealed: Way,
    /// The same host, and `docker load` of a file in its image.
    pub(crate) load: Way,
    /// The same host, and `docker pull` from a registry on this machine.
    pub(crate) pull: Way,
}

/// The samples of one way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// From the exec of the entrypoint until the API answers and lists the image.
    pub(crate) present_ms: Vec<f64>,
    /// The same until the application has answered its first request.
    pub(crate) answer_ms: Vec<f64>,
    /// What `docker stats` calls the host's memory then, in MiB.
    pub(crate) memory_mib: Vec<f64>,
    /// What its data root takes on the disk then, in MB.
    pub(crate) disk_mb: Vec<f64>,
}

/// What a way starts with.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Empty,
    Sealed,
    Load,
    Pull,
}

/// Measures everything; `say`s how far it is.
pub(crate) fn everything(rounds: u32) -> Result<Sealed> {
    let load = load()?;
    let engine = docker(&["run", "--rm", "--entrypoint=dockerd", IMAGE, "--version"])?;
    // Docker version 26.1.5+dfsg1, build a72d7cd
    let engine = engine.split_whitespace().nth(2).unwrap_or_default().trim_end_matches(',').to_owned();
    let machine = machine(load, engine)?;
    let mut cases = Vec::new();
    for (megabytes, layers) in CASES {
        say(&format!("{megabytes} MB in {layers} layers"));
        cases.push(
            case(megabytes, layers, rounds).with_context(|| format!("{megabytes} MB in {layers} layers"))?,
        );
    }
    Ok(Sealed { date: OffsetDateTime::now_utc().date().to_string(), machine, cases })
}

fn case(megabytes: u64, layers: usize, rounds: u32) -> Result<Case> {
    let folder = tempfile::tempdir()?;
    let stage = Stage::set(&folder, megabytes, layers)?;
    let mut case = Case {
        megabytes,
        layers,
        bake_ms: stage.bake_ms,
        bake_again_ms: stage.bake_again_ms,
        cold: Samples::default(),
        warm: Samples::default(),
    };
    let slow_rounds = if megabytes > 1000 { 1 } else { SLOW_ROUNDS };
    for round in 0..rounds {
        let mut kinds = vec![Kind::Empty, Kind::Sealed];
        if round < slow_rounds {
            kinds.extend([Kind::Load, Kind::Pull]);
        }
        let turn = usize::try_from(round)? % kinds.len();
        kinds.rotate_left(turn);
        for kind in kinds {
            for (samples, is_cold) in [(&mut case.cold, true), (&mut case.warm, false)] {
                let way = match kind {
                    Kind::Empty => &mut samples.empty,
                    Kind::Sealed => &mut samples.sealed,
                    Kind::Load => &mut samples.load,
                    Kind::Pull => &mut samples.pull,
                };
                stage.once(kind, is_cold, way)?;
            }
        }
        say(&format!("round {} of {rounds}", round + 1));
    }
    Ok(case)
}

/// What is there before anything is measured; it goes when it goes out of scope.
struct Stage<'a> {
    folder: &'a TempDir,
    image: String,
    registry: Container,
    disk: Disk,
    bake_ms: f64,
    bake_again_ms: f64,
}

impl<'a> Stage<'a> {
    fn set(folder: &'a TempDir, megabytes: u64, layers: usize) -> Result<Self> {
        let at = |name: &str| folder.path().join(name);
        write_archive(&at("images.tar"), megabytes, layers)?;
        fs::write(
            at("docker-compose.yml"),
            format!("services:\n  web:\n    image: {NAME}\n    init: true\n    ports: [\"8080:80\"]\n"),
        )?;
        let image = format!("dind-benches-sealed:{megabytes}-{layers}");
        let bake = || -> Result<f64> {
            let (archive, file) = (at("images.tar"), at("docker-compose.yml"));
            let begin = Instant::now();
            dind(&["bake", "-q", "--image-archive", &text(&archive), "-t", &image, &text(&file)])?;
            Ok(milliseconds(begin.elapsed()))
        };
        let (bake_ms, bake_again_ms) = (bake()?, bake()?);
        let registry = registry(&at("images.tar"))?;
        let disk = Disk::mount(&at("disk.img"), &at("disk"))?;
        Ok(Self { folder, image, registry, disk, bake_ms, bake_again_ms })
    }

    /// One start of one way.
    fn once(&self, kind: Kind, is_cold: bool, way: &mut Way) -> Result<()> {
        let archive = format!("--volume={}:/images.tar:ro", text(&self.folder.path().join("images.tar")));
        let address = address(&self.registry)?;
        let insecure = format!("--env=DIND_INSECURE_REGISTRIES={address}:5000");
        let image = if kind == Kind::Sealed { self.image.as_str() } else { IMAGE };
        let root = self.disk.fresh()?;
        let volume = format!("--volume={}:/var/lib/docker", text(&root));
        let arguments: Vec<&str> = OPTIONS
            .iter()
            .copied()
            .chain([archive.as_str(), volume.as_str(), insecure.as_str(), image])
            .collect();
        let host = Container::create(&arguments, "dind-init")?;
        if is_cold {
            empty_page_cache()?;
        }
        let ready = host.start()?.ready;
        let begin = Instant::now();
        let name = match kind {
            Kind::Load => {
                host.exec_within(600, &["docker", "load", "-q", "-i", "/images.tar"])?;
                NAME.to_owned()
            }
            Kind::Pull => {
                let name = format!("{address}:5000/{NAME}");
                host.exec_within(600, &["docker", "pull", "-q", &name])?;
                name
            }
            Kind::Empty | Kind::Sealed => NAME.to_owned(),
        };
        let spent = if matches!(kind, Kind::Load | Kind::Pull) { begin.elapsed() } else { Duration::ZERO };
        way.present_ms.push(milliseconds(ready + spent));
        if kind == Kind::Empty {
            return Ok(());
        }
        if kind != Kind::Sealed {
            host.exec(&["docker", "run", "-d", "--init", "-p", "8080:80", &name])?;
        }
        first_answer(SocketAddr::new(self::address(&host)?.parse()?, 8080))?;
        way.answer_ms.push(milliseconds(ready + begin.elapsed()));
        // Off the clock: it is there, as was said.
        host.exec(&["docker", "image", "inspect", &name])?;
        let memory = docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", host.id()])?;
        way.memory_mib.push(mebibytes(&memory)?);
        let disk = host.exec(&["du", "-skx", "/var/lib/docker"])?;
        let kilobytes: f64 = disk.split_whitespace().next().unwrap_or_default().parse()?;
        way.disk_mb.push((kilobytes * 1.024).round() / 1000.0);
        Ok(())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let _ = docker(&["rmi", "-f", &self.image]);
    }
}

/// A file system of its own for data roots; it goes when it goes out of scope.
struct Disk(PathBuf);

impl Disk {
    /// Makes one in `file`, of 40 GB at most that are there when they are written, and mounts it on `place`.
    fn mount(file: &Path, place: &Path) -> Result<Self> {
        File::create(file)?.set_len(40_000_000_000)?;
        fs::create_dir(place)?;
        run("mkfs.ext4", &["-q", "-F", &text(file)])?;
        run("mount", &["-o", "loop", &text(file), &text(place)])?;
        Ok(Self(place.to_owned()))
    }

    /// An empty folder on it, and none other.
    fn fresh(&self) -> Result<PathBuf> {
        let root = self.0.join("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir(&root)?;
        Ok(root)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &text(&self.0)]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = std::process::Command::new(program).args(arguments).status();
    let done = status.with_context(|| format!("cannot run {program}"))?.success();
    ensure!(done, "{program} {} has failed", arguments.join(" "));
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A registry that has the image, in a host of its own.
fn registry(archive: &Path) -> Result<Container> {
    let volume = format!("--volume={}:/images.tar:ro", text(archive));
    let arguments: Vec<&str> = OPTIONS.iter().copied().chain([volume.as_str(), IMAGE]).collect();
    let host = Container::create(&arguments, "dind-init")?;
    docker(&["cp", "/usr/bin/docker-registry", &format!("{}:/bin/registry", host.id())])?;
    host.start()?;
    let script = format!(
        "set -e
        printf 'version: 0.1\\nstorage: {{filesystem: {{rootdirectory: /var/lib/docker/registry}}}}\\nhttp: {{addr: 0.0.0.0:5000}}\\n' >/registry.yml
        registry serve /registry.yml >/dev/null 2>&1 &
        docker load -q -i /images.tar
        docker tag {NAME} localhost:5000/{NAME}
        docker push -q localhost:5000/{NAME}
        docker rmi -f {NAME} localhost:5000/{NAME}"
    );
    host.exec_within(900, &["sh", "-c", &script])?;
    Ok(host)
}

fn address(host: &Container) -> Result<String> {
    docker(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", host.id()])
}

/// Waits until somebody answers HTTP there.
fn first_answer(address: SocketAddr) -> Result<()> {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.") && answer.contains(" 200 "))
    };
    let begin = Instant::now();
    while !ask().unwrap_or(false) {
        ensure!(begin.elapsed() < DEADLINE, "the application at {address} does not answer");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// What is on the disk must be read from there.
fn empty_page_cache() -> Result<()> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("cannot empty the page cache")
}

/// The first figure of `12.3MiB / 23.4GiB`.
fn mebibytes(text: &str) -> Result<f64> {
    let amount = text.split(" / ").next().unwrap_or_default();
    let digits = amount.trim_end_matches(char::is_alphabetic);
    let factor = match &amount[digits.len()..] {
        "KiB" => 1.0 / 1024.0,
        "MiB" => 1.0,
        "GiB" => 1024.0,
        unit => anyhow::bail!("docker stats says {text}: what is {unit}?"),
    };
    Ok(digits.parse::<f64>()? * factor)
}

/// Writes what `docker save` would: an image of so many layers, of which the first has a busybox and all have random bytes.
fn write_archive(path: &Path, megabytes: u64, layers: usize) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    let mut random = File::open("/dev/urandom")?;
    let share = megabytes * 1_000_000 / u64::try_from(layers)?;
    let (mut digests, mut names) = (Vec::new(), Vec::new());
    for number in 0..layers {
        let mut layer = tar::Builder::new(Vec::new());
        if number == 0 {
            layer.append_data(
                &mut header(fs::metadata("/bin/busybox")?.len(), 0o755),
                "busybox",
                File::open("/bin/busybox")?,
            )?;
            layer.append_data(&mut header(3, 0o644), "www/index.html", &b"up\n"[..])?;
        }
        // Files of at most 4 MB, as images have many and not one.
        for (index, size) in pieces(share, 4_000_000).enumerate() {
            let content = (&mut random).take(size);
            layer.append_data(&mut header(size, 0o644), format!("data/{number}/{index}"), content)?;
        }
        let layer = layer.into_inner()?;
        digests.push(format!("sha256:{}", hexadecimal(&layer)));
        names.push(format!("{number}/layer.tar"));
        archive.append_data(
            &mut header(u64::try_from(layer.len())?, 0o644),
            &names[number],
            layer.as_slice(),
        )?;
    }
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": ["/busybox", "httpd", "-f", "-h", "/www"] },
        "rootfs": { "type": "layers", "diff_ids": digests },
    })
    .to_string();
    let manifest =
        serde_json::json!([{ "Config": "config.json", "RepoTags": [format!("{NAME}:latest")], "Layers": names }]).to_string();
    for (name, text) in [("config.json", config), ("manifest.json", manifest)] {
        archive.append_data(&mut header(u64::try_from(text.len())?, 0o644), name, text.as_bytes())?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn pieces(whole: u64, most: u64) -> impl Iterator<Item = u64> {
    (0..whole.div_ceil(most)).map(move |index| most.min(whole - index * most))
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header
}

fn hexadecimal(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Draws the table.
pub(crate) fn draw(results: &Sealed) -> String {
    let mut text = format!(
        "{}; {} cores, load {} before, Linux {}; in the image: Docker {}\n",
        results.date,
        results.machine.cores,
        results.machine.load,
        results.machine.kernel,
        results.machine.engine_in_image
    );
    for case in &results.cases {
        text.push_str(&format!(
            "\n{} MB in {} layers: baked in {:.1} s, again in {:.1} s\n",
            case.megabytes,
            case.layers,
            case.bake_ms / 1000.0,
            case.bake_again_ms / 1000.0
        ));
        row(
            &mut text,
            ["median (least - most), ms", "an empty host", "sealed", "docker load", "docker pull"],
        );
        for (name, samples) in [("cold", &case.cold), ("warm", &case.warm)] {
            let ways = [&samples.empty, &samples.sealed, &samples.load, &samples.pull];
            let present = ways.map(|way| spread(&way.present_ms));
            row(
                &mut text,
                [&format!("{name}: images are there"), &present[0], &present[1], &present[2], &present[3]],
            );
            let sealed = &samples.sealed.present_ms;
            let of =
                |way: &Way| ratio(sealed, &way.present_ms).map_or("-".into(), |ratio| format!("{ratio:.3}"));
            row(&mut text, ["  sealed divided by it", &of(ways[0]), "", &of(ways[2]), &of(ways[3])]);
            let added = ways.map(|way| added(way, ways[0]));
            let said = |ms: Option<f64>| ms.map_or("-".into(), |ms| format!("{ms:.0}"));
            row(&mut text, ["  added by the images", "", &said(added[1]), &said(added[2]), &said(added[3])]);
            let times = |other: Option<f64>| {
                // Within a millisecond there is nothing to divide by.
                let some = added[1].filter(|sealed| *sealed >= 1.0);
                some.zip(other).map_or("-".into(), |(sealed, other)| format!("{:.0}", other / sealed))
            };
            row(&mut text, ["  times what sealed adds", "", "", &times(added[2]), &times(added[3])]);
            let answers = ways.map(|way| spread(&way.answer_ms));
            row(&mut text, ["  first answer", &answers[0], &answers[1], &answers[2], &answers[3]]);
            let memory = ways.map(|way| spread(&way.memory_mib));
            row(&mut text, ["  memory then, MiB", &memory[0], &memory[1], &memory[2], &memory[3]]);
            let disk = ways.map(|way| spread(&way.disk_mb));
            row(&mut text, ["  data root then, MB", &disk[0], &disk[1], &disk[2], &disk[3]]);
        }
    }
    text
}

/// By how many milliseconds a way's median is above an empty host's.
fn added(way: &Way, empty: &Way) -> Option<f64> {
    let median = |way: &Way| Spread::of(&way.present_ms).map(|spread| spread.median);
    median(way).zip(median(empty)).map(|(way, empty)| way - empty)
}

fn row(text: &mut String, cells: [&str; 5]) {
    let [name, rest @ ..] = cells;
    let rest: String = rest.iter().map(|cell| format!("{cell:>24}")).collect();
    text.push_str(format!("{name:<26}{rest}").trim_end());
    text.push('\n');
}

fn spread(samples: &[f64]) -> String {
    let said = |spread: Spread| format!("{:.0} ({:.0} - {:.0})", spread.median, spread.least, spread.most);
    Spread::of(samples).map_or("-".into(), said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_docker_stats_says() {
        for (text, expected) in [("1.5GiB / 23GiB", 1536.0), ("512KiB / 1GiB", 0.5), ("20MiB / 1GiB", 20.0)] {
            assert!((mebibytes(text).unwrap() - expected).abs() < 1e-9, "{text}");
        }
        assert!(mebibytes("20MB / 1GB").is_err());
    }

    #[test]
    fn a_layer_is_made_of_files_that_are_not_too_large() {
        assert_eq!(pieces(10, 4).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(pieces(8, 4).collect::<Vec<_>>(), [4, 4]);
    }
}
