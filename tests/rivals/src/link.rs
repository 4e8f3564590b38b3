//! A link with a round trip and a rate, for servers of this machine: real TCP at both ends, so that
//! Nagle's algorithm and delayed acknowledgements show, which they don't on loopback.
//!
//! The kernel's own emulation (netem) is not built into every kernel. So a TUN device passes all
//! packets to a process, which holds each back for half a round trip, and sends them at the rate. A
//! client that connects to [`SERVER`] reaches this machine's [`OWN`] from there, and the server
//! sees the client as [`CLIENT`].

use std::collections::VecDeque;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::suite::Failed;

/// The address of this machine on the device. Servers have to listen there.
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 1);
/// Where clients connect to.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 2);
/// Where they come from, as servers see them.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 3);

/// The round trip, without the time that sending takes.
pub const ROUND_TRIP: Duration = Duration::from_micros(300);
/// Of each direction.
pub const BITS_PER_SECOND: u64 = 1_000_000_000;

const DEVICE: &str = "crtlink0";
/// What waits for its turn in one direction; further packets are lost, as in a switch.
const QUEUE_BYTES: usize = 4 << 20;
const LARGEST_PACKET: usize = 2_048;

/// Attaches the device to standard input, which takes an `ioctl`, and becomes the process that
/// forwards.
const ATTACH: &str = r#"
import fcntl, os, struct, sys
device = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(device, 0x400454ca, struct.pack("16sH22x", sys.argv[2].encode(), 0x1001))
os.set_blocking(device, False)
os.dup2(device, 0)
os.execv(sys.argv[1], [sys.argv[1], "link"])
"#;

/// The link; it ends with this.
#[derive(Debug)]
pub struct Link(Child);

impl Link {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// Why it can't be made here: it takes `python3`, `ip`, `/dev/net/tun` and the rights of root.
    pub fn start() -> Result<Self, String> {
        let executable = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new("python3");
        command.arg("-c").arg(ATTACH).arg(executable).arg(DEVICE);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let mut link = Self(child);
        let mut said = [0];
        let output = link.0.stdout.as_mut();
        let is_ready = output.is_some_and(|output| output.read_exact(&mut said).is_ok());
        if !is_ready {
            let mut why = String::new();
            if let Some(errors) = &mut link.0.stderr {
                let _ = errors.read_to_string(&mut why);
            }
            let why = why.lines().last().unwrap_or("no TUN device").to_owned();
            return Err(why);
        }
        let address = format!("{OWN}/24");
        ip(&["address", "add", &address, "dev", DEVICE])?;
        ip(&["link", "set", DEVICE, "mtu", "1500", "up"])?;
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// The packets of one direction.
struct Direction {
    /// When the last one has been sent.
    free: Instant,
    waiting: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Direction {
    fn new() -> Self {
        Self {
            free: Instant::now(),
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, packet: Vec<u8>, now: Instant) {
        if self.bytes + packet.len() > QUEUE_BYTES {
            return;
        }
        let bits = packet.len() as u64 * 8;
        let takes = Duration::from_nanos(bits * 1_000_000_000 / BITS_PER_SECOND);
        self.free = self.free.max(now) + takes;
        self.bytes += packet.len();
        self.waiting.push_back((self.free + ROUND_TRIP / 2, packet));
    }

    /// The next packet that has arrived.
    fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (at, _) = self.waiting.front()?;
        if *at > now {
            return None;
        }
        let (_, packet) = self.waiting.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }
}

/// Forwards the packets of the device at standard input, for ever.
///
/// # Errors
///
/// When the device is gone.
pub fn run() -> Result<(), Failed> {
    use std::io::Write;
    let input = std::io::stdin();
    let device = input.as_fd();
    let mut output = std::io::stdout();
    output.write_all(b"+")?;
    output.flush()?;
    let (mut there, mut back) = (Direction::new(), Direction::new());
    let mut buffer = vec![0; LARGEST_PACKET];
    loop {
        let now = Instant::now();
        for direction in [&mut there, &mut back] {
            while let Some(packet) = direction.arrived(now) {
                // What the device does not take is lost, as on any link.
                let _ = rustix::io::write(device, &packet);
            }
        }
        let fronts = [&there, &back].map(|direction| direction.waiting.front().map(|(at, _)| *at));
        let next = fronts.into_iter().flatten().min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|time| Timespec {
            tv_sec: 0,
            tv_nsec: time.as_nanos().min(999_999_999) as _,
        });
        let mut polled = [PollFd::new(&device, PollFlags::IN)];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        loop {
            let length = match rustix::io::read(device, &mut buffer[..]) {
                Ok(0) => return Err("the device is gone".into()),
                Ok(length) => length,
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            };
            let mut packet = buffer[..length].to_vec();
            match translate(&mut packet) {
                Some(Way::There) => there.add(packet, Instant::now()),
                Some(Way::Back) => back.add(packet, Instant::now()),
                None => {}
            }
        }
    }
}

/// From client to server, or back.
#[derive(Debug, PartialEq)]
enum Way {
    There,
    Back,
}

/// Gives a packet the addresses under which the other end knows this one. `None` for others than
/// TCP between these two.
fn translate(packet: &mut [u8]) -> Option<Way> {
    const TCP: u8 = 6;
    let (version, words) = (packet.first()? >> 4, usize::from(packet.first()? & 15));
    if version != 4 || *packet.get(9)? != TCP || packet.len() < words * 4 + 20 {
        return None;
    }
    let address = |at: usize| -> Option<Ipv4Addr> {
        Some(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into())
    };
    let (way, from, to) = match (address(12)?, address(16)?) {
        (OWN, SERVER) => (Way::There, CLIENT, OWN),
        (OWN, CLIENT) => (Way::Back, SERVER, OWN),
        _ => return None,
    };
    let before = packet[12..20].to_vec();
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    let after = packet[12..20].to_vec();
    // The checksum of the header, and that of TCP, which covers the addresses too.
    for at in [10, words * 4 + 16] {
        let old = u16::from_be_bytes([packet[at], packet[at + 1]]);
        let new = updated(old, &before, &after);
        packet[at..at + 2].copy_from_slice(&new.to_be_bytes());
    }
    Some(way)
}

/// A checksum after a part of what it covers has changed (RFC 1624).
fn updated(checksum: u16, before: &[u8], after: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let words = bytes.chunks_exact(2);
        words
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum()
    };
    let gone: u32 = before.len() as u32 / 2 * 0xffff - words(before);
    let mut sum = u32::from(!checksum) + gone + words(after);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(bytes: &[u8]) -> u16 {
        updated(0xffff, &[], bytes)
    }

    /// A packet whose checksums are right: only addresses and ports count here.
    fn packet(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0; 40];
        (packet[0], packet[9]) = (0x45, 6);
        packet[12..16].copy_from_slice(&from.octets());
        packet[16..20].copy_from_slice(&to.octets());
        let header = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        packet[20..24].copy_from_slice(&[0x1f, 0x90, 0x18, 0xeb]);
        let covered = [&packet[12..20], &[0, 6, 0, 20], &packet[20..]].concat();
        let segment = checksum(&covered);
        packet[36..38].copy_from_slice(&segment.to_be_bytes());
        packet
    }

    #[test]
    fn a_packet_gets_the_addresses_that_the_other_end_knows() {
        let mut there = packet(OWN, SERVER);
        assert_eq!(translate(&mut there), Some(Way::There));
        assert_eq!(there, packet(CLIENT, OWN));
        let mut back = packet(OWN, CLIENT);
        assert_eq!(translate(&mut back), Some(Way::Back));
        assert_eq!(back, packet(SERVER, OWN));
        assert_eq!(translate(&mut packet(CLIENT, SERVER)), None);
        assert_eq!(translate(&mut [0x60; 40]), None);
    }

    #[test]
    fn packets_are_paced_and_late() {
        let mut direction = Direction::new();
        let now = direction.free;
        // A thousand bytes take 8 µs.
        direction.add(vec![0; 1_000], now);
        direction.add(vec![1; 1_000], now);
        let at = |micros| now + ROUND_TRIP / 2 + Duration::from_micros(micros);
        assert!(direction.arrived(at(7)).is_none());
        assert!(
            direction
                .arrived(at(8))
                .is_some_and(|packet| packet[0] == 0)
        );
        assert!(direction.arrived(at(15)).is_none());
        assert!(
            direction
                .arrived(at(16))
                .is_some_and(|packet| packet[0] == 1)
        );
        assert_eq!(direction.bytes, 0);
    }
}
