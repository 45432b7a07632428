//! One end of the link: a network namespace with an address, as a host of its own.
//!
//! Namespaces are made and furnished by `ip`, which keeps a name for each in a directory; a program is
//! run in one by `ip netns exec`. Names carry the process that made them. Dropping a [`Namespace`]
//! removes its name, and [`remove_abandoned`] those of processes that were killed before they could.
//!
//! The device is not made by `ip` but by whoever carries its packets, and goes when that one does.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastcp_sys::tun;

use super::LinkError;
use super::ring::PACKET_BYTES_MAX;

/// Where `ip` keeps the names.
const NAMES_DIR: &str = "/run/netns";

/// The first part of every name that is ours.
const NAME_PREFIX: &str = "fastcp-link";

/// What the device is called in either namespace.
const DEVICE: &str = "link0";

/// The network of both ends: RFC 2544 reserves it for benchmarks.
const NETWORK: &str = "198.18.0.0/24";

/// Packets that the device holds while its carrier sleeps; the usual 500 are less than one burst of slow start.
const DEVICE_QUEUE_PACKETS: &str = "10000";

/// What most hosts run. The machine's own default says nothing about them.
const CONGESTION_CONTROL: &str = "cubic";

/// One end of the link.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    address: Ipv4Addr,
}

impl Namespace {
    /// Makes a namespace with nothing but the loopback device.
    pub(super) fn add(link: u32, end: &str, address: Ipv4Addr) -> Result<Self, LinkError> {
        let name = format!("{NAME_PREFIX}-{}-{link}-{end}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name, address };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Makes the device, gives it the address and brings it up.
    pub(super) fn attach(&self) -> Result<File, LinkError> {
        let device = self.within(|| tun::open(DEVICE)).map_err(|source| self.failed("make the device", source))?;
        self.without_ipv6()?;
        let network_bits = NETWORK.split_once('/').map_or("24", |(_, bits)| bits);
        self.ip(&["address", "add", &format!("{}/{network_bits}", self.address), "dev", DEVICE])?;
        let mtu = PACKET_BYTES_MAX.to_string();
        self.ip(&["link", "set", DEVICE, "mtu", &mtu, "txqueuelen", DEVICE_QUEUE_PACKETS, "up"])?;
        self.choose_congestion_control()?;
        Ok(device.into())
    }

    /// The name that `ip netns` knows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address by which the other end reaches this one.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that will run `program` in this namespace, by way of `ip netns exec`. The process that
    /// is spawned becomes the program, so that its id and exit status are the program's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Does `act` on a thread inside this namespace. A socket that it makes stays there.
    ///
    /// # Errors
    /// As entering the namespace, otherwise what `act` answers.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        tun::in_namespace(&Path::new(NAMES_DIR).join(&self.name), act)
    }

    /// Keeps the kernel from looking for routers and neighbours: packets that nobody sent would move the
    /// losses, which are counted from the first packet.
    fn without_ipv6(&self) -> Result<(), LinkError> {
        let path = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6"));
        match self.within(|| fs::write(&path, "1")) {
            // A kernel without IPv6 is as quiet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| self.failed("turn IPv6 off", source)),
        }
    }

    /// Sets what new connections start with.
    fn choose_congestion_control(&self) -> Result<(), LinkError> {
        let path = "/proc/sys/net/ipv4/tcp_congestion_control";
        match self.within(|| fs::write(path, CONGESTION_CONTROL)) {
            // EPERM: the machine does not let every user choose it, and then it cannot be a namespace's
            // default either. A route may name it all the same.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.ip(&["route", "replace", NETWORK, "dev", DEVICE, "congctl", CONGESTION_CONTROL])
            }
            result => result.map_err(|source| self.failed("choose the congestion control", source)),
        }
    }

    /// Lets nobody choose another: the kernel refuses it with EPERM to sockets of a route that locks it.
    pub(super) fn lock_congestion_control(&self) -> Result<(), LinkError> {
        self.ip(&["route", "replace", NETWORK, "dev", DEVICE, "congctl", "lock", CONGESTION_CONTROL])
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), LinkError> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> LinkError {
        LinkError::Namespace { operation, name: self.name.clone(), source }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nobody is left to tell; the name would be removed as abandoned by the next link.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

/// Removes the namespaces of processes that are no more.
pub(super) fn remove_abandoned() {
    // No directory, no namespaces.
    let names = fs::read_dir(NAMES_DIR).into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        if maker(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another link may be removing it too.
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

/// The process that gave this name; `None` if it is not one of ours.
fn maker(name: &str) -> Option<u32> {
    let (pid, link_and_end) = name.strip_prefix(NAME_PREFIX)?.strip_prefix('-')?.split_once('-')?;
    link_and_end.split_once('-')?.0.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// Runs `ip` with these arguments to its end.
fn ip(arguments: &[&str]) -> Result<(), LinkError> {
    let arguments_said = || arguments.join(" ");
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|source| LinkError::IpMissing { arguments: arguments_said(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LinkError::IpFailed { arguments: arguments_said(), said })
}

#[cfg(test)]
mod tests {
    use super::maker;

    #[test]
    fn only_names_of_ours_have_a_maker() {
        assert_eq!(maker("fastcp-link-4711-0-near"), Some(4711));
        for name in ["fastcp-link-4711", "fastcp-link-x-0-far", "fastcp-link-1-x-far", "other-4711-0-near", ""] {
            assert_eq!(maker(name), None, "{name}");
        }
    }
}
