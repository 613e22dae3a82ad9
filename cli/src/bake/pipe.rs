//! Between the endpoint's streams and threads that read and write archives: bytes pass in pieces, a few at a time.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Pieces that may wait to be read.
const WAITING: usize = 16;

/// The end that a thread reads.
pub(crate) struct Incoming {
    pieces: Receiver<io::Result<Bytes>>,
    left: Bytes,
}

/// The end that a thread writes.
pub(crate) struct Outgoing(Sender<io::Result<Bytes>>);

/// What passes a stream's pieces on to a thread, and the end that the thread reads.
pub(crate) fn incoming<E: std::fmt::Display>(
    stream: impl Stream<Item = Result<Bytes, E>>,
) -> (impl Future<Output = ()>, Incoming) {
    let (sender, pieces) = mpsc::channel(WAITING);
    let pump = async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| io::Error::other(error.to_string()));
            // Whoever reads no more has what it wants, or has failed and says so.
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    };
    (pump, Incoming { pieces, left: Bytes::new() })
}

/// The end that a thread writes, and what it wrote as a stream.
pub(crate) fn outgoing() -> (Outgoing, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
    let (sender, mut pieces) = mpsc::channel(WAITING);
    (Outgoing(sender), futures_util::stream::poll_fn(move |context| pieces.poll_recv(context)))
}

impl Outgoing {
    /// Tells whoever reads that there will be no good end.
    pub(crate) fn fail(&self, e: &io::Error) {
        let _ = self.0.blocking_send(Err(io::Error::other(e.to_string())));
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.left.has_remaining() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.left = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.left.remaining());
        self.left.copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
