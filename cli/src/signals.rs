//! Signals that ask a command to end. It ends when it has cleaned up.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Result};

/// The signals that ask for an end, once they are listened to.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signals: [(Signal, i32); 4],
}

impl Interrupt {
    /// Begins to listen: from here on none of them ends the process by itself.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn listen() -> Result<Self> {
        let listen =
            |kind: SignalKind| -> io::Result<(Signal, i32)> { Ok((signal(kind)?, kind.as_raw_value())) };
        let all = || -> io::Result<_> {
            Ok([
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
                listen(SignalKind::quit())?,
            ])
        };
        let signals = all()
            .map_err(|e| Failure::new(format!("cannot listen to signals: {e}"), "report this as a defect"))?;
        Ok(Self { signals })
    }

    /// Waits for the next of them; its number.
    pub(crate) async fn caught(&mut self) -> i32 {
        let [(int, int_number), (term, term_number), (hup, hup_number), (quit, quit_number)] =
            &mut self.signals;
        tokio::select! {
            _ = int.recv() => *int_number,
            _ = term.recv() => *term_number,
            _ = hup.recv() => *hup_number,
            _ = quit.recv() => *quit_number,
        }
    }

    /// Waits for somebody who wants the end of an end. The first signal may be the one that has brought it about: a terminal sends
    /// it to the command and to us, and the command may be the first to end. One that is closed sends any number.
    pub(crate) async fn insisted(&mut self) -> i32 {
        let mut forgiven = false;
        loop {
            let number = self.caught().await;
            if number != SignalKind::hangup().as_raw_value() && std::mem::replace(&mut forgiven, true) {
                return number;
            }
        }
    }
}

/// What a command that was asked to end says when it has cleaned up; `left` is what is left behind.
pub(crate) fn interrupted(number: i32, left: &str) -> Failure {
    let name =
        nix::sys::signal::Signal::try_from(number).map_or("a signal", nix::sys::signal::Signal::as_str);
    Failure::new(format!("ended by {name}; {left}"), "start it again when you like")
        .with_code(dind_contract::exit::killed_by(number))
}
