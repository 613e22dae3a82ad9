//! A server of a test's own, on a port of the loopback interface: a thread for each connection.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<Connections>,
    door: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to listen. `serve` gets each connection; `failed` gets why one failed, unless the server has ended.
    ///
    /// # Panics
    /// When nothing can be listened on.
    #[track_caller]
    pub(crate) fn start(
        serve: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static,
        failed: impl Fn(io::Error) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of this machine is free");
        let address = listener.local_addr().expect("a listener has an address");
        let connections = Arc::new(Connections::default());
        let door = {
            let connections = Arc::clone(&connections);
            let (serve, failed) = (Arc::new(serve), Arc::new(failed));
            thread::spawn(move || {
                for stream in listener.incoming().filter_map(Result::ok) {
                    if !connections.keep(&stream) {
                        return;
                    }
                    let connections = Arc::clone(&connections);
                    let (serve, failed) = (Arc::clone(&serve), Arc::clone(&failed));
                    thread::spawn(move || {
                        let served = serve(&stream);
                        // It is also in the list, so that to drop it here does not end it.
                        let _ = stream.shutdown(Shutdown::Write);
                        if let Err(error) = served
                            && !connections.state().ended
                        {
                            failed(error);
                        }
                    });
                }
            })
        };
        Self { address, connections, door: Some(door) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and takes no more.
    pub(crate) fn end(&mut self) {
        self.connections.end();
        // Wakes the door, which then finds that this is the end.
        let _ = TcpStream::connect(self.address);
        if let Some(door) = self.door.take() {
            let _ = door.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Debug, Default)]
struct Connections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: Vec<TcpStream>,
    ended: bool,
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in; not when the server has come to its end.
    fn keep(&self, connection: &TcpStream) -> bool {
        let mut state = self.state();
        state.open.extend(connection.try_clone());
        !state.ended
    }

    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        for connection in state.open.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
