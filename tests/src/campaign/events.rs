//! When the engine itself considered something done.
//!
//! The engine reports an event when everything is done and just before it answers; the client's end is seen tens of
//! milliseconds later. A host begins its sync at the event, so only the event's time tells what a sync has covered.

use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use serde_json::Value;
use time::OffsetDateTime;

use super::engine::Engine;

/// One event: what it was about, by id and by name, and when.
#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    at: OffsetDateTime,
}

/// The events of an engine, from the moment this was made until the engine ends.
#[derive(Debug, Default, Clone)]
pub(super) struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    /// Listens to an engine, in a thread that ends with it.
    pub(super) fn follow(engine: &Engine) -> Result<Self> {
        let events = Self::default();
        let follow = ["exec", engine.name(), "docker", "events", "--format", "{{json .}}"];
        let reader = duct::cmd("docker", follow).stderr_null().unchecked().reader()?;
        let heard = events.clone();
        thread::spawn(move || {
            let lines = BufReader::new(&reader).lines().map_while(Result::ok);
            for event in lines.filter_map(|line| parse(&line)) {
                heard.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        });
        Ok(events)
    }

    /// When the engine was done with something, known by any of these names, that was acknowledged at `seen`.
    pub(super) fn moment(&self, names: &[String], seen: OffsetDateTime) -> OffsetDateTime {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let about = |event: &&Event| names.contains(&event.id) || names.contains(&event.name);
        let moments = events.iter().filter(about).map(|event| event.at);
        moments.filter(|at| *at <= seen).max().unwrap_or(seen)
    }
}

fn parse(line: &str) -> Option<Event> {
    let event: Value = serde_json::from_str(line).ok()?;
    let nanoseconds = i128::from(event["timeNano"].as_i64()?);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Event {
        id: text(&event["Actor"]["ID"]),
        name: text(&event["Actor"]["Attributes"]["name"]),
        at: OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_before_the_answer_counts() {
        let line = |name: &str, seconds: u64| {
            let nanoseconds = seconds * 1_000_000_000;
            format!(
                r#"{{"Actor":{{"ID":"sha256:1","Attributes":{{"name":"{name}"}}}},"timeNano":{nanoseconds}}}"#
            )
        };
        let events = Events::default();
        let parsed = [("a:1", 10), ("b:1", 20), ("a:1", 30), ("a:1", 40)].map(|(n, s)| parse(&line(n, s)));
        events.0.lock().unwrap().extend(parsed.into_iter().flatten());
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        for (name, seen, moment) in [("a:1", 35, 30), ("b:1", 35, 20), ("sha256:1", 25, 20), ("c", 35, 35)] {
            assert_eq!(events.moment(&[name.into()], at(seen)), at(moment), "{name}");
        }
        assert!(parse("not an event").is_none());
    }
}
