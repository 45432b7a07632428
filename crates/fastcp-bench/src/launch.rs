//! What is started for each tool: the words of its server's command and of its client's.
//!
//! Written once for loopback and links: the words know an address, not where it is. The server runs
//! at one end, the client at the other ([`Tool::server_end`]), and only the client is timed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::BenchError;
use crate::programs::{Programs, find_in_path, is_root};
use crate::ssh::{self, Ssh};
use crate::tool::Tool;
use crate::variant::{Access, Connections, Variant};

/// socat's own 8 KiB would be what limits tar.
const SOCAT_BUFFER_BYTES: &str = "262144";

/// Of randomness, in a token that nobody guesses.
const TOKEN_BYTES: usize = 16;

/// What a tool needs to know of one run.
#[derive(Debug)]
pub(crate) struct Route<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) source: &'a Path,
    pub(crate) destination: &'a Path,
    /// For files that the tool needs; its own for this run.
    pub(crate) scratch: &'a Path,
    /// Of the server's end.
    pub(crate) ip: Ipv4Addr,
    /// For tools that can use more than one.
    pub(crate) connections: u16,
}

/// How a server is known to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It says `listening on ADDRESS` on stdout, and with a key `address: URL#KEY` in a second line.
    Says { has_key: bool },
    /// It listens on the port that it was given.
    Listens(SocketAddrV4),
}

/// Where a server listens, and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddrV4,
    /// The fingerprint of its key, where clients are to ask for one.
    pub(crate) key: Option<String>,
}

/// A server to start.
#[derive(Debug)]
pub(crate) struct ServerLaunch {
    pub(crate) words: Vec<OsString>,
    pub(crate) ready: Ready,
    /// Whether one process does all the work, so that its memory and time are the server's.
    pub(crate) is_one_process: bool,
}

impl Route<'_> {
    /// The server's command; `None` for tools that have none. `free_port` answers a port to use.
    pub(crate) fn server(
        &self,
        tool: Tool,
        free_port: impl FnOnce() -> Result<u16, BenchError>,
    ) -> Result<Option<ServerLaunch>, BenchError> {
        let said =
            |words, has_key| Ok(Some(ServerLaunch { words, ready: Ready::Says { has_key }, is_one_process: true }));
        match tool {
            Tool::Cp | Tool::Create | Tool::Syq { .. } => Ok(None),
            Tool::Fastcp(Variant { access: Access::Ssh, .. }) | Tool::RsyncSsh | Tool::Scp | Tool::TarSsh => {
                let address = SocketAddrV4::new(self.ip, free_port()?);
                let words = self.ssh().server(address)?;
                Ok(Some(ServerLaunch { words, ready: Ready::Listens(address), is_one_process: false }))
            }
            Tool::Fastcp(variant) => said(self.fastcp_server(variant)?, variant.access == Access::Tls),
            Tool::Bare => {
                let ip = self.ip.to_string();
                said(words(&[&self.programs.bench, "bare-serve".as_ref(), self.source, ip.as_ref()]), false)
            }
            Tool::Tar | Tool::Rsync | Tool::RsyncZ | Tool::Rclone => {
                let address = SocketAddrV4::new(self.ip, free_port()?);
                let words = match tool {
                    Tool::Tar => self.tar_server(address),
                    Tool::Rclone => self.rclone_server(address),
                    _ => self.rsync_server(address)?,
                };
                let is_one_process = tool == Tool::Rclone;
                Ok(Some(ServerLaunch { words, ready: Ready::Listens(address), is_one_process }))
            }
        }
    }

    /// The client's command. Tools without a server ignore where one listens.
    pub(crate) fn client(&self, tool: Tool, listening: &Listening) -> Vec<OsString> {
        let address = listening.address;
        let connections = self.connections.to_string();
        match tool {
            Tool::Fastcp(variant) => self.fastcp_client(variant, listening),
            Tool::Cp => words(&["cp".as_ref(), "-a".as_ref(), &self.source.join("."), &with_slash(self.destination)]),
            Tool::Tar => self.tar_client(address),
            Tool::Rsync => self.rsync_client(&["-a"], &rsync_url(address)),
            Tool::RsyncZ => self.rsync_client(&["-a", "-z"], &rsync_url(address)),
            Tool::RsyncSsh => {
                self.rsync_client(&["-a", "-e", &self.ssh().shell()], &self.far(&with_slash(self.source)))
            }
            Tool::Scp => self.scp_client(),
            Tool::TarSsh => self.tar_ssh_client(),
            Tool::Rclone => self.rclone_client(address),
            Tool::Syq { is_plain } => self.syq_client(is_plain),
            Tool::Bare => {
                let address = address.to_string();
                let fixed = ["bare-fetch", "--conns", &connections, &address];
                prefixed(&self.programs.bench, &fixed, &[self.destination])
            }
            Tool::Create => prefixed(&self.programs.bench, &["create"], &[&self.manifest(), self.destination]),
        }
    }

    /// The list of files for `create`.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.scratch.join("manifest")
    }

    fn ssh(&self) -> Ssh<'_> {
        Ssh::new(self.scratch)
    }

    /// A path at the server's end, for tools that log in there.
    fn far(&self, path: &Path) -> OsString {
        let mut far = OsString::from(ssh::HOST);
        far.push(":");
        far.push(path);
        far
    }

    /// What fastcp's client and server prove to each other that they know.
    fn token(&self) -> PathBuf {
        self.scratch.join("token")
    }

    fn fastcp_server(&self, variant: Variant) -> Result<Vec<OsString>, BenchError> {
        let ip = self.ip.to_string();
        let served = if variant.is_push { self.destination } else { self.source };
        let mut all = words(&[&self.programs.server, served, ip.as_ref(), "0".as_ref()]);
        if variant.is_push {
            all.extend(["--allow-write", "--allow-delete", "--allow-setuid"].map(OsString::from));
        }
        if variant.access == Access::Tls {
            let (token, key) = (self.token(), self.scratch.join("server.key"));
            make_token(&token).map_err(BenchError::file("write", &token))?;
            all.extend(["--token-file".into(), token.into(), "--tls-key".into(), key.into()]);
        } else if !self.ip.is_loopback() {
            all.push("--insecure".into());
        }
        Ok(all)
    }

    fn fastcp_client(&self, variant: Variant, listening: &Listening) -> Vec<OsString> {
        let key = listening.key.as_ref().map(|key| format!("#{key}")).unwrap_or_default();
        let url = match variant.access {
            Access::Ssh if variant.is_push => self.far(&with_slash(self.destination)),
            Access::Ssh => self.far(&with_slash(self.source)),
            Access::Open | Access::Tls => format!("fcp://{}{key}/", listening.address).into(),
        };
        let connections = match variant.connections {
            Connections::Usual => self.connections.to_string(),
            Connections::Count(count) => count.to_string(),
            Connections::Auto => "auto".to_owned(),
        };
        let (url, source) = (Path::new(&url), with_slash(self.source));
        let mut all = match variant.is_push {
            false => words(&[&self.programs.client, "pull".as_ref(), url, self.destination]),
            true => words(&[&self.programs.client, "push".as_ref(), &source, url]),
        };
        all.extend(["--conns", &connections, "--json"].map(OsString::from));
        match variant.access {
            Access::Open if self.ip.is_loopback() => {}
            Access::Open => all.push("--insecure".into()),
            Access::Tls => all.extend(["--token-file".into(), self.token().into()]),
            Access::Ssh => {
                let server = self.programs.server.clone();
                all.extend(["-e".into(), self.ssh().shell().into(), "--remote-bin".into(), server.into()]);
            }
        }
        if variant.is_raw {
            all.push("--no-compress".into());
        }
        if variant.is_whole {
            all.push("--whole-file".into());
        }
        if variant.is_unsynced {
            all.extend(["--durability", "none"].map(OsString::from));
        }
        all
    }

    fn tar_server(&self, address: SocketAddrV4) -> Vec<OsString> {
        let script = format!(
            "tar -C \"$1\" -cf - . | socat -u -b {SOCAT_BUFFER_BYTES} - TCP-LISTEN:{port},bind={ip},reuseaddr",
            port = address.port(),
            ip = address.ip(),
        );
        prefixed("sh".as_ref(), &["-c", &script, "sh"], &[self.source])
    }

    fn tar_client(&self, address: SocketAddrV4) -> Vec<OsString> {
        let script = format!("socat -u -b {SOCAT_BUFFER_BYTES} TCP:{address} - | tar -C \"$1\" -xf -");
        prefixed("sh".as_ref(), &["-c", &script, "sh"], &[self.destination])
    }

    fn rsync_server(&self, address: SocketAddrV4) -> Result<Vec<OsString>, BenchError> {
        let config = self.scratch.join("rsyncd.conf");
        let owner = if is_root() { "uid = root\ngid = root\n" } else { "" };
        let text = format!(
            "use chroot = no\n{owner}log file = {}\n[tree]\npath = {}\nread only = yes\n",
            self.scratch.join("rsyncd.log").display(),
            self.source.display(),
        );
        fs::write(&config, text).map_err(BenchError::file("write", &config))?;
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let fixed = ["--daemon", "--no-detach", "--address", &ip, "--port", &port, "--config"];
        Ok(prefixed("rsync".as_ref(), &fixed, &[&config]))
    }

    /// `--no-whole-file` is what rsync does anyway from a daemon; that it is said makes the command tell it.
    fn rsync_client(&self, options: &[&str], from: &OsStr) -> Vec<OsString> {
        let fixed = ["--no-whole-file", "--stats"];
        let paths = [Path::new(from), &with_slash(self.destination)];
        prefixed("rsync".as_ref(), &[options, &fixed].concat(), &paths)
    }

    fn scp_client(&self) -> Vec<OsString> {
        let config = self.ssh().client_config();
        let from = self.far(&self.source.join("."));
        let fixed = ["scp", "-q", "-r", "-F"].map(Path::new);
        words(&[&fixed[..], &[&config, from.as_ref(), &with_slash(self.destination)]].concat())
    }

    fn tar_ssh_client(&self) -> Vec<OsString> {
        let script = format!("ssh -F \"$1\" {} \"tar -C '$2' -cf - .\" | tar -C \"$3\" -xf -", ssh::HOST);
        let config = self.ssh().client_config();
        prefixed("sh".as_ref(), &["-c", &script, "sh"], &[&config, self.source, self.destination])
    }

    /// Over HTTP, not WebDAV, for which rclone's client allows itself a hundred calls a second.
    fn rclone_server(&self, address: SocketAddrV4) -> Vec<OsString> {
        let address = address.to_string();
        let fixed = ["serve", "http", "--config", "", "--read-only", "--addr", &address];
        prefixed("rclone".as_ref(), &fixed, &[self.source])
    }

    fn rclone_client(&self, address: SocketAddrV4) -> Vec<OsString> {
        let (url, count) = (format!("http://{address}"), self.connections.to_string());
        let transfers = ["--transfers", &count, "--checkers", &count, "--multi-thread-streams", &count];
        let fixed = ["copy", "--config", "", "--http-url", &url, ":http:"];
        prefixed("rclone".as_ref(), &[&fixed[..5], &transfers, &fixed[5..]].concat(), &[self.destination])
    }

    /// The remote `syq` is the same program, and all that it needs to know of its host is that it is another.
    fn syq_client(&self, is_plain: bool) -> Vec<OsString> {
        let there = find_in_path("syq").unwrap_or_else(|| "syq".into());
        let mut all = prefixed("syq".as_ref(), &["cp", "-q", "--rsh", REMOTE_SHELL, "--syq-path"], &[&there]);
        all.extend(["--preserve", "times,permissions,ownership", "--from", "far", "--srcs-in"].map(OsString::from));
        all.extend([self.source.as_os_str().to_owned(), "--into".into(), self.destination.as_os_str().to_owned()]);
        if is_plain {
            all.push("--tcp-plain".into());
        }
        all
    }
}

/// What stands for a remote shell: it is given a host's name and a command, and runs that command here.
const REMOTE_SHELL: &str = "sh -c 'shift; eval \"exec $*\"' sh";

fn rsync_url(address: SocketAddrV4) -> OsString {
    format!("rsync://{address}/tree/").into()
}

/// A file with a token, for its owner alone.
fn make_token(path: &Path) -> io::Result<()> {
    let mut random = [0; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")
}

fn words(parts: &[&Path]) -> Vec<OsString> {
    parts.iter().map(|part| part.as_os_str().to_owned()).collect()
}

fn prefixed(program: &Path, fixed: &[&str], paths: &[&Path]) -> Vec<OsString> {
    let fixed = fixed.iter().map(OsStr::new);
    let paths = paths.iter().map(|path| path.as_os_str());
    [program.as_os_str()].into_iter().chain(fixed).chain(paths).map(OsStr::to_owned).collect()
}

/// With a slash at the end, which `cp` and `rsync` take as "into this", and `fastcp-client push` as "what is in it".
fn with_slash(dir: &Path) -> PathBuf {
    dir.join("")
}
