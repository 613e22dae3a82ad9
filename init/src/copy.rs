//! Copying a warm data root: `dind-init helper copy-data-root SOURCE TARGET`, the whole work of a container, so that a host
//! starts on a copy with images in it instead of fetching them. It is an ordinary program.
//!
//! cp(1) does the work, because it knows holes and extents that files can share; what it must not lose is compared afterwards.

mod compare;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::ask;
use crate::exec;
use crate::failure::Failure;
use crate::ground::{self, Source, Target};
use crate::process::{HELPER, OURSELVES};

/// The longest that cp(1) may take. Data roots can be as large as disks.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// How cp(1) is called. Attributes are asked for by name: with `-a` it is no error when they cannot be kept.
const OPTIONS: [&str; 6] = [
    "--recursive",
    "--no-dereference",
    "--preserve=mode,ownership,timestamps,links,xattr",
    "--reflink=auto",
    "--sparse=auto",
    "--target-directory",
];
/// How many of cp's complaints are passed on.
const COMPLAINTS: usize = 3;

/// Copies the data root `source` into the empty folder `target`, and says what that took.
///
/// # Errors
/// One of them cannot be used, or the copy is not what its source is.
pub(crate) fn run(
    source: &Path,
    target: &Path,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<ExitCode, Failure> {
    if std::process::id() == 1 {
        // A PID 1 hears no signal that it does not handle: another process of ours does the work, and ends by them.
        let words = [
            OURSELVES.as_ref(),
            HELPER.as_ref(),
            "copy-data-root".as_ref(),
            source.as_os_str(),
            target.as_os_str(),
        ];
        return exec::run(&words.map(OsString::from), environment);
    }
    let began = Instant::now();
    let source = Source::lock(source)?;
    let target = Target::lock(target, &source)?;
    let names = source.names()?;
    let reflinked = target.shares_extents_with(&source);
    if !names.is_empty() {
        copy(&source.path, &target.path, &names)?;
    }
    look_alike(&source.path, &target.path).map_err(|e| {
        Failure::unavailable(format!("cannot give {} its mode and owner: {e}", target.path.display()), REMOVE)
    })?;
    let tally = compare::compare(&source.path, &target.path, &names).map_err(|difference| {
        Failure::unavailable(
            format!(
                "the copy of {} in {} is not like it: {difference}",
                source.path.display(),
                target.path.display()
            ),
            format!("copy to a file system that keeps all of this, such as ext4 or xfs; {REMOVE}"),
        )
    })?;
    target.finish(&source)?;
    let how = if reflinked { "reflinked" } else { "without reflinks" };
    let (files, bytes, ms) = (tally.files, tally.bytes, began.elapsed().as_millis());
    ask::show(&format!("copied {files} files, {bytes} bytes, in {ms} ms, {how}\n"))?;
    Ok(ExitCode::SUCCESS)
}

const REMOVE: &str = "what is in the target now is of no use: remove it";

fn copy(source: &Path, target: &Path, names: &[OsString]) -> Result<(), Failure> {
    let options = OPTIONS.iter().map(OsString::from).chain([target.into(), "--".into()]);
    let arguments = options.chain(names.iter().map(|name| source.join(name).into_os_string()));
    ground::run_program("cp", arguments, "", PATIENCE).map(drop).map_err(|why| {
        // It says its own name in each.
        let why = why.strip_prefix("cp: ").filter(|rest| rest.starts_with("cp: ")).unwrap_or(&why);
        let complaints: Vec<&str> = why.split("; ").collect();
        let more = complaints.len().saturating_sub(COMPLAINTS);
        let mut why = complaints.into_iter().take(COMPLAINTS).collect::<Vec<_>>().join("; ");
        if more > 0 {
            why.push_str(&format!("; and {more} more"));
        }
        Failure::unavailable(
            format!("cannot copy {} to {}: {why}", source.display(), target.display()),
            format!("look at the disks under both; {REMOVE}"),
        )
    })
}

/// Gives the folder itself the mode and owner of its source. An engine makes its data root private.
fn look_alike(source: &Path, target: &Path) -> io::Result<()> {
    let like = fs::metadata(source)?;
    chown(target, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(target, like.permissions())
}
