//! The line carries, freezes and cuts as it says; ports are kept.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::{LineState, Link, kept_address};

#[test]
fn the_line_carries_freezes_cuts_and_mends() {
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = Link::open().unwrap();
    link.lead_to(far.local_addr().unwrap());

    let mut near = TcpStream::connect(link.address()).unwrap();
    let (mut end, _) = far.accept().unwrap();
    let mut letters = [0; 3];
    near.write_all(b"abc").unwrap();
    end.read_exact(&mut letters).unwrap();
    assert_eq!(&letters, b"abc");
    end.write_all(b"def").unwrap();
    near.read_exact(&mut letters).unwrap();
    assert_eq!(&letters, b"def");
    assert_eq!((link.bytes(), link.connections()), ((3, 3), 1));

    link.freeze();
    near.write_all(b"ghi").unwrap();
    end.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let held = end.read(&mut letters).unwrap_err().kind();
    assert!(matches!(held, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{held}");
    link.restore();
    end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    end.read_exact(&mut letters).unwrap();
    assert_eq!(&letters, b"ghi");

    link.cut();
    assert_eq!(near.read(&mut letters).unwrap_or(0), 0, "closed");
    assert_eq!(end.read(&mut letters).unwrap_or(0), 0, "at both ends");
    let mut refused = TcpStream::connect(link.address()).unwrap();
    assert_eq!(refused.read(&mut letters).unwrap_or(0), 0, "and stays so");
    assert_eq!((link.line(), link.cuts()), (LineState::Cut, 1));

    link.restore();
    let mut near = TcpStream::connect(link.address()).unwrap();
    let (mut end, _) = far.accept().unwrap();
    near.write_all(b"jkl").unwrap();
    end.read_exact(&mut letters).unwrap();
    assert_eq!(&letters, b"jkl");
}

#[test]
fn an_address_is_given_once_and_can_be_come_back_to() {
    let (one, other) = (kept_address().unwrap(), kept_address().unwrap());
    assert_ne!(one, other);
    let given: u16 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(49_152);
    assert!(one.port() < given, "{one} is given away");
    for _ in 0..2 {
        drop(TcpListener::bind(one).unwrap());
    }
}
