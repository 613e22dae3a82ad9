//! Many questions to one host.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::host::Host;

/// A question and its name.
pub type Question = (&'static str, fn(&Host));

/// Asks a host each of these questions, in order, and fails at the end with the names of those that failed: a host for each would
/// start only to be asked. A question must leave the host as it finds it, but for what it makes under names of its own.
///
/// # Panics
/// When a question has failed; what it said is in the output.
#[track_caller]
pub fn ask(host: &Host, questions: &[Question]) {
    let failed = |(name, question): &&Question| {
        println!("question: {name}");
        catch_unwind(AssertUnwindSafe(|| question(host))).is_err()
    };
    let failed: Vec<&str> = questions.iter().filter(failed).map(|(name, _)| *name).collect();
    assert!(failed.is_empty(), "of {} questions these failed: {}", questions.len(), failed.join(", "));
}

/// Functions with their names, for [`ask`].
#[macro_export]
macro_rules! questions {
    ($($question:path),+ $(,)?) => { &[$((stringify!($question), $question as fn(&$crate::Host))),+] };
}
