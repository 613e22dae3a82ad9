//! `dind-init doctor`: what is under a host, what it chose, and why. Where no host runs, what one would find.

use std::process::ExitCode;

use dind_contract::{Diagnosis, Verdict, exit};

use crate::failure::Failure;
use crate::settings::Settings;
use crate::{ask, ground};

/// Prints the diagnosis; ends with 69 when no host can run here.
pub(crate) fn doctor(json: bool) -> Result<ExitCode, Failure> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let diagnosis = match ask::current() {
        // The host's own findings: what a probe finds beside it is not what it stands on.
        Ok(status) => Diagnosis { version, host: true, findings: status.ground },
        Err(_) => {
            let settings = Settings::load(std::env::vars_os(), &[], crate::read_if_there)?;
            Diagnosis { version, host: false, findings: ground::diagnose(&settings)? }
        }
    };
    let text = if json {
        serde_json::to_string_pretty(&diagnosis).map_err(|e| {
            Failure::failed(format!("cannot write the diagnosis: {e}"), "report this as a defect")
        })? + "\n"
    } else {
        describe(&diagnosis)
    };
    ask::show(&text)?;
    Ok(ExitCode::from(if diagnosis.can_run() { exit::CLEAN } else { exit::UNAVAILABLE }))
}

fn describe(diagnosis: &Diagnosis) -> String {
    let mut text = if diagnosis.host {
        "What this host stands on:\n".to_owned()
    } else {
        "No host runs here. This is what one would find:\n".to_owned()
    };
    for finding in &diagnosis.findings {
        let mark = match finding.verdict {
            Verdict::Good => ' ',
            Verdict::Fallback => '!',
            Verdict::Missing => '✗',
        };
        text.push_str(&format!("\n{mark} {}\n", finding.subject));
        let better = finding.better.as_deref().unwrap_or_default();
        for (word, said) in [
            ("found", finding.found.as_str()),
            ("chosen", &finding.chosen),
            ("why", &finding.why),
            ("better", better),
        ] {
            if !said.is_empty() {
                text.push_str(&format!("    {word:<7} {said}\n"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use dind_contract::Finding;

    use super::*;

    #[test]
    fn the_text_says_what_the_document_says() {
        let finding = |subject: &str, verdict, better: Option<&str>| Finding {
            subject: subject.into(),
            verdict,
            found: "this".into(),
            chosen: "that".into(),
            why: if better.is_some() { "so".into() } else { String::new() },
            better: better.map(str::to_owned),
        };
        let findings = vec![
            finding("mtu", Verdict::Good, None),
            finding("storage", Verdict::Fallback, Some("a volume")),
        ];
        let diagnosis = Diagnosis { version: "1".into(), host: true, findings };
        let expected = "\
What this host stands on:

  mtu
    found   this
    chosen  that

! storage
    found   this
    chosen  that
    why     so
    better  a volume
";
        assert_eq!(describe(&diagnosis), expected);
        assert!(diagnosis.can_run());
    }
}
