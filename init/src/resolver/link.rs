//! An address on the loopback interface, through rtnetlink(7).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

// linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const AF_INET: u8 = 2;
const RT_SCOPE_HOST: u8 = 254;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const LOOPBACK: &str = "lo";

/// Gives the loopback interface `address`; a relay that was killed may have left it there.
pub(super) fn add(address: Ipv4Addr) -> io::Result<()> {
    match request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, address) {
        Err(e) if e.raw_os_error() == Some(Errno::EEXIST as i32) => Ok(()),
        other => other,
    }
}

/// Takes it away again.
pub(super) fn remove(address: Ipv4Addr) -> io::Result<()> {
    request(RTM_DELADDR, 0, address)
}

fn request(kind: u16, flags: u16, address: Ipv4Addr) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(LOOPBACK)?;
    let message = message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, index, address);
    let link =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(link.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(link.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    error(answer.get(..length).unwrap_or_default())
}

/// A header (nlmsghdr), what it is about (ifaddrmsg), and the address twice: on an interface that is no tunnel, the local
/// address and that of the other end are one.
fn message(kind: u16, flags: u16, index: u32, address: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![AF_INET, 32, 0, RT_SCOPE_HOST];
    body.extend(index.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(address.octets());
    }
    let length = 16 + u32::try_from(body.len()).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // A sequence number, and who asks: 0 is this socket.
    message.extend([1_u32.to_ne_bytes(), 0_u32.to_ne_bytes()].concat());
    message.extend(body);
    message
}

/// What an acknowledgement says: the number after its header is 0, or an error's with a minus before it.
fn error(answer: &[u8]) -> io::Result<()> {
    let number = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match number {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_length_that_it_names() {
        let message = message(RTM_NEWADDR, NLM_F_REQUEST, 1, Ipv4Addr::new(169, 254, 53, 53));
        assert_eq!(message.len(), 40);
        assert_eq!(message[..4], 40_u32.to_ne_bytes());
        assert_eq!(message[36..], [169, 254, 53, 53]);
    }

    #[test]
    fn answers_are_understood_or_refused() {
        let answer = |number: i32| [&[0; 16][..], &number.to_ne_bytes()].concat();
        assert!(error(&answer(0)).is_ok());
        assert_eq!(error(&answer(-1)).unwrap_err().raw_os_error(), Some(1));
        assert!(error(&[0; 7]).is_err());
    }
}
