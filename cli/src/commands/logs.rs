//! `dind logs`: what a host has written.

use std::io::Write;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use clap::Args;
use futures_util::StreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::{Failure, Result};
use crate::hosts::Host;
use crate::options::units;
use crate::{Context, endpoint};

/// Print the log of a host
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The host
    pub(crate) name: String,
    /// Go on with what it writes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what is younger: a time such as 10m or 2h, or a moment such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<i32>,
    /// Only the last lines: how many, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", hide_default_value = true, value_parser = tail)]
    pub(crate) tail: String,
    /// With the time at which the engine got each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
}

/// Does it.
pub(crate) async fn run(context: &Context, logs: Logs) -> Result<()> {
    let endpoint = context.connect().await?;
    let host = Host::find(&endpoint, &logs.name).await?;
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .follow(logs.follow)
        .timestamps(logs.timestamps)
        .since(logs.since.unwrap_or(0))
        .tail(&logs.tail)
        .build();
    let mut pieces = endpoint.docker.logs(host.id.as_str(), Some(options));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            Failure::new(
                format!("the log of the host {} cannot be read: {}", host.name, endpoint::cause(&error)),
                "see whether it is there: dind ls -a; some log drivers cannot be read back",
            )
        })?;
        if !show(piece)? {
            break;
        }
    }
    Ok(())
}

/// Writes a piece where it belongs; whether anybody still reads.
pub(crate) fn show(piece: LogOutput) -> Result<bool> {
    let (errors, bytes) = match piece {
        LogOutput::StdErr { message } => (true, message),
        piece => (false, piece.into_bytes()),
    };
    let written = if errors {
        std::io::stderr().lock().write_all(&bytes)
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes).and_then(|()| out.flush())
    };
    match written {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => {
            Err(Failure::new(format!("cannot write: {e}"), "look at where it goes: its disk may be full"))
        }
    }
}

/// How many lines, as the engine takes it.
fn tail(text: &str) -> Result<String, String> {
    match text.parse::<u32>() {
        Ok(lines) => Ok(lines.to_string()),
        Err(_) if text == "all" => Ok(text.to_owned()),
        Err(_) => Err("a number of lines is expected, or all".to_owned()),
    }
}

/// A moment, in seconds since 1970.
fn moment(text: &str) -> Result<i32, String> {
    let now = OffsetDateTime::now_utc();
    let moment = match units::time(text) {
        Ok(ago) => now - ago,
        Err(_) => OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            "a time such as 10m or 2h is expected, or a moment such as 2026-01-31T12:00:00Z".to_owned()
        })?,
    };
    i32::try_from(moment.unix_timestamp()).map_err(|_| "that moment is out of reach".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_a_number_or_all() {
        assert_eq!(tail("all").as_deref(), Ok("all"));
        assert_eq!(tail("007").as_deref(), Ok("7"));
        for bad in ["", "some", "1.5"] {
            assert!(tail(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments() {
        assert_eq!(moment("1970-01-01T00:01:00Z"), Ok(60));
        assert!(moment("10m").is_ok());
        assert!(moment("yesterday").is_err());
    }
}
