//! `dind-init resolver`: makes a name server that listens on this host's loopback usable by the containers inside.
//!
//! Docker gives a container on a network of its own the name server 127.0.0.11, which no nested container can reach, so
//! dockerd gives theirs a public one instead (moby#20037). This relay listens on an address of its own and passes
//! queries on, byte by byte. It is a service beside the engine: an ordinary program that may block, with threads.
//!
//! The other way, to rewrite the rules that the outer engine made for 127.0.0.11 and to let loopback addresses be routed,
//! depends on what kind of rules those are, and breaks whenever they are made anew.
#![allow(clippy::disallowed_methods, reason = "a service of its own, not PID 1: it may have threads")]

mod inside;
mod link;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dind_contract::paths;
use nix::sys::signal::{SigSet, Signal};

use crate::failure::Failure;
use inside::Inside;

/// Where it listens. A link-local address (RFC 3927) collides with no network that anybody makes; this one is none of
/// those on which clouds offer something.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
const PORT: u16 = 53;

/// How long an answer may take, which is how long clients wait for one (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// The most datagrams whose answers are waited for; more are dropped, and clients ask again.
const DATAGRAMS: usize = 256;
/// The most connections.
const CONNECTIONS: usize = 64;
/// What a thread needs: a datagram of the greatest length, and some calls.
const STACK: usize = 256 * 1024;
/// The greatest length of a datagram.
const LONGEST: usize = 65_535;

/// Relays to `servers` until SIGTERM.
///
/// # Errors
/// Its address cannot be had.
pub(crate) fn run(servers: &[IpAddr]) -> Result<ExitCode, Failure> {
    let cannot = |what: &str, e: io::Error| {
        Failure::unavailable(
            format!("cannot {what} {ADDRESS}: {e}"),
            "set DIND_DNS to name servers that nested containers can reach",
        )
    };
    // Before there are threads, which inherit it.
    let ending = SigSet::from(Signal::SIGTERM);
    ending.thread_block().map_err(|e| cannot("wait for signals beside", e.into()))?;
    let servers: Arc<[SocketAddr]> = servers.iter().map(|server| SocketAddr::new(*server, PORT)).collect();
    link::add(ADDRESS).map_err(|e| cannot("add the address", e))?;
    let address = (ADDRESS, PORT);
    let datagrams = UdpSocket::bind(address).map_err(|e| cannot("listen for datagrams on", e))?;
    let connections = TcpListener::bind(address).map_err(|e| cannot("listen for connections on", e))?;
    let inside = Arc::new(Inside::new(ADDRESS));
    let relay = (Arc::clone(&servers), Arc::clone(&inside));
    thread::spawn(move || relay_datagrams(&datagrams, &relay.0, &relay.1));
    thread::spawn(move || relay_connections(&connections, &servers, &inside));
    // Whoever started it by hand has no such socket.
    let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", paths::NOTIFY_SOCKET));
    let _ = ending.wait();
    let _ = link::remove(ADDRESS);
    Ok(ExitCode::SUCCESS)
}

/// A place among a bounded number, free again when it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let place = Self(Arc::clone(taken));
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A short rest where a system call failed for want of memory or descriptors: it would fail again at once.
fn rest() {
    thread::sleep(Duration::from_millis(10));
}

fn relay_datagrams(socket: &UdpSocket, servers: &Arc<[SocketAddr]>, inside: &Inside) {
    let taken = Arc::default();
    let mut query = vec![0; LONGEST];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut query) else {
            rest();
            continue;
        };
        let Some(place) = Place::take(&taken, DATAGRAMS).filter(|_| inside.has(client.ip())) else {
            continue;
        };
        let query = query.get(..length).unwrap_or_default().to_vec();
        let (Ok(socket), servers) = (socket.try_clone(), Arc::clone(servers)) else { continue };
        let _ = thread::Builder::new().stack_size(STACK).spawn(move || {
            if let Some(answer) = ask(&servers, &query) {
                let _ = socket.send_to(&answer, client);
            }
            drop(place);
        });
    }
}

/// The answer of the first server that has one.
fn ask(servers: &[SocketAddr], query: &[u8]) -> Option<Vec<u8>> {
    let patience = PATIENCE / u32::try_from(servers.len()).ok()?.max(1);
    servers.iter().find_map(|server| {
        let any: IpAddr = if server.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        // Connected, it takes nobody else's answer, and hears at once that nobody listens there.
        socket.connect(server).ok()?;
        socket.set_read_timeout(Some(patience)).ok()?;
        socket.send(query).ok()?;
        let mut answer = vec![0; LONGEST];
        let length = socket.recv(&mut answer).ok()?;
        answer.truncate(length);
        Some(answer)
    })
}

fn relay_connections(listener: &TcpListener, servers: &Arc<[SocketAddr]>, inside: &Arc<Inside>) {
    let taken = Arc::default();
    loop {
        let Ok((client, address)) = listener.accept() else {
            rest();
            continue;
        };
        // Who got this far receives what is sent to its address, so that it cannot pretend to be inside.
        let Some(place) = Place::take(&taken, CONNECTIONS).filter(|_| inside.has(address.ip())) else {
            continue;
        };
        let servers = Arc::clone(servers);
        let _ = thread::Builder::new().stack_size(STACK).spawn(move || {
            let _ = relay_connection(&client, &servers);
            drop(place);
        });
    }
}

fn relay_connection(client: &TcpStream, servers: &[SocketAddr]) -> io::Result<()> {
    let server = servers.iter().find_map(|server| TcpStream::connect_timeout(server, PATIENCE).ok());
    let server = server.ok_or(ErrorKind::ConnectionRefused)?;
    for stream in [client, &server] {
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
    }
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let copied = io::copy(&mut from, &mut to);
        // The other direction may go on after the end of this one, but not after its failure.
        let _ = to.shutdown(if copied.is_ok() { Shutdown::Write } else { Shutdown::Both });
        copied
    };
    thread::scope(|scope| {
        let back = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || copy(&server, client))?;
        copy(client, &server)?;
        back.join().map_err(|_| ErrorKind::Other)?.map(|_| ())
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn the_first_server_that_answers_is_heard() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let answers = thread::spawn(move || {
            let mut query = [0; 64];
            let (length, client) = server.recv_from(&mut query).unwrap();
            let mut answer = query[..length].to_vec();
            answer.reverse();
            server.send_to(&answer, client).unwrap();
        });
        let servers = [gone, silent.local_addr().unwrap(), address];
        assert_eq!(ask(&servers, b"query").unwrap(), b"yreuq");
        answers.join().unwrap();
        assert_eq!(ask(&[gone], b"query"), None);
    }

    #[test]
    fn connections_are_passed_on_both_ways() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = TcpListener::bind("127.0.0.1:0").unwrap();
        let servers = [server.local_addr().unwrap()];
        let mut client = TcpStream::connect(relay.local_addr().unwrap()).unwrap();
        let (relayed, _) = relay.accept().unwrap();
        let work = thread::spawn(move || relay_connection(&relayed, &servers));
        let (mut upstream, _) = server.accept().unwrap();
        client.write_all(b"query").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut query = Vec::new();
        upstream.read_to_end(&mut query).unwrap();
        upstream.write_all(b"answer").unwrap();
        drop(upstream);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        work.join().unwrap().unwrap();
        assert_eq!((query.as_slice(), answer.as_slice()), (&b"query"[..], &b"answer"[..]));
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let taken = Arc::default();
        let first = Place::take(&taken, 1);
        assert!(first.is_some() && Place::take(&taken, 1).is_none());
        drop(first);
        assert!(Place::take(&taken, 1).is_some());
    }
}
