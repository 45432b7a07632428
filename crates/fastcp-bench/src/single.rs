//! One run of one tool: its server started, its client measured, its copy counted.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::census::Census;
use crate::contents;
use crate::create;
use crate::error::BenchError;
use crate::interrupt::Interrupt;
use crate::launch::{Listening, Route, ServerLaunch};
use crate::measure::{Measurement, Usage};
use crate::programs::{Programs, search_path};
use crate::report::{FastcpSummary, LinkTraffic, Round};
use crate::server::{ProcessGroup, Server, free_port, last_words};
use crate::site::{Ends, Site};
use crate::tool::Tool;
use crate::trees::Tree;
use crate::variant::Variant;
use crate::wire_bytes::WireBytes;

/// What every run of a case has in common.
#[derive(Debug)]
pub(crate) struct SingleRun<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) scratch: &'a Path,
    pub(crate) site: &'a Site,
    pub(crate) tree: &'a Tree,
    /// What the destination holds before a run, where it is not empty.
    pub(crate) basis: Option<&'a Tree>,
    pub(crate) connections: u16,
    pub(crate) timeout: Duration,
}

/// How a run ended, where nothing was wrong.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With a right copy.
    Copied(Box<Copied>),
    /// It was stopped.
    OverTime { seconds: u64 },
}

/// A run that made a right copy.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) measurement: Measurement,
    pub(crate) server: Option<Usage>,
    pub(crate) link: Option<[LinkTraffic; 2]>,
    pub(crate) said: Said,
    /// As the report shows them.
    pub(crate) commands: Vec<String>,
}

/// What a client says of its run.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) fastcp: Option<FastcpSummary>,
    pub(crate) wire: Option<WireBytes>,
}

impl Copied {
    /// For the report.
    pub(crate) fn round(self, round: u32) -> Round {
        let Measurement { wall_s, sync_s, usage, .. } = self.measurement;
        let Said { fastcp, wire } = self.said;
        Round { round, wall_s, sync_s, client: usage, server: self.server, link: self.link, fastcp, wire }
    }
}

impl SingleRun<'_> {
    /// Copies into `destination`, and sees that the copy is right.
    pub(crate) fn run(&self, tool: Tool, destination: &Path) -> Result<Ended, BenchError> {
        let ends = self.site.ends()?;
        if let (Tool::Fastcp(Variant { is_without_bbr: true, .. }), Ends::Link(link)) = (tool, &ends) {
            link.lock_congestion_control()?;
        }
        let files = tempfile::tempdir_in(self.scratch).map_err(BenchError::file("write to", self.scratch))?;
        let route = Route {
            programs: self.programs,
            source: &self.tree.root,
            destination,
            scratch: files.path(),
            ip: ends.ip(tool.server_end()),
            connections: self.connections,
        };
        if tool == Tool::Create {
            create::prepare(self.tree, destination, &route.manifest())?;
        }
        let launch = route.server(tool, free_port)?;
        let server = launch.as_ref().map(|launch| self.start(tool, launch, &route, &ends)).transpose()?;
        let nowhere = || Listening { address: SocketAddrV4::new(route.ip, 0), key: None };
        let listening = server.as_ref().map_or_else(nowhere, |server| server.listening.clone());
        let words = route.client(tool, &listening);
        let Some(measurement) = self.measure(tool, &words, &route, &ends)? else {
            return Ok(Ended::OverTime { seconds: self.timeout.as_secs() });
        };
        let is_one_process = launch.as_ref().is_some_and(|launch| launch.is_one_process);
        let usage = server.as_ref().filter(|_| is_one_process).and_then(Server::usage);
        drop(server);
        let link = ends.counters().map(|directions| directions.map(LinkTraffic::from));
        self.tree.census.expect(Census::of(destination)?)?;
        if self.basis.is_some() {
            contents::expect_equal(&self.tree.root, destination)?;
        }
        let said = said(tool, &client_out(&route))?;
        let all_words = launch.iter().map(|launch| &launch.words).chain([&words]);
        let commands = all_words.map(|words| shown(words, &route, &listening)).collect();
        Ok(Ended::Copied(Box::new(Copied { measurement, server: usage, link, said, commands })))
    }

    fn start(&self, tool: Tool, launch: &ServerLaunch, route: &Route<'_>, ends: &Ends) -> Result<Server, BenchError> {
        let mut command = ends.command(tool.server_end(), &self.programs.bench);
        clean_environment(&mut command, route.scratch);
        command.args(["tether", "--"]).args(&launch.words);
        Server::start(&format!("the server of {tool}"), &mut command, launch.ready, &route.scratch.join("server.err"))
    }

    /// `None` where it took too long.
    fn measure(
        &self,
        tool: Tool,
        words: &[OsString],
        route: &Route<'_>,
        ends: &Ends,
    ) -> Result<Option<Measurement>, BenchError> {
        let report = route.scratch.join("measurement.json");
        let (out, err) = (client_out(route), route.scratch.join("client.err"));
        let mut command = ends.command(tool.server_end().other(), &self.programs.bench);
        clean_environment(&mut command, route.scratch);
        command.args(["measure", "--report"]).arg(&report);
        if self.site.has_disk() {
            command.arg("--sync").arg(route.destination);
        }
        command.arg("--").args(words);
        command.stdout(File::create(&out).map_err(BenchError::file("create", &out))?);
        command.stderr(File::create(&err).map_err(BenchError::file("create", &err))?);
        let failed = |ended| BenchError::Program { program: tool.to_string(), ended, said: last_words(&err) };
        match ProcessGroup::spawn(&mut command)?.wait(self.interrupt, self.timeout)? {
            None => return Ok(None),
            Some(status) if !status.success() => return Err(failed(status.to_string())),
            Some(_) => {}
        }
        let measurement = Measurement::read(&report)?;
        match measurement.failure {
            Some(ended) => Err(failed(ended)),
            None => Ok(Some(measurement)),
        }
    }
}

fn client_out(route: &Route<'_>) -> PathBuf {
    route.scratch.join("client.out")
}

/// Nothing that the user has set for fastcp or its rivals reaches them, and they keep nothing among the user's files but
/// in a directory in `scratch`.
pub(crate) fn clean_environment(command: &mut Command, scratch: &Path) {
    command.env("XDG_CONFIG_HOME", scratch.join("config"));
    command.env("PATH", search_path());
    let is_setting =
        |name: &str| ["FASTCP_", "RSYNC_", "RCLONE_", "TAR_OPTIONS"].iter().any(|own| name.starts_with(own));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_setting)) {
        command.env_remove(name);
    }
}

fn said(tool: Tool, out: &Path) -> Result<Said, BenchError> {
    let text = || fs::read(out).map_err(BenchError::file("read", out));
    match tool {
        Tool::Fastcp(_) => said_by_fastcp(&text()?).map_err(|source| BenchError::Json {
            expected: "what fastcp-client --json says",
            path: out.to_path_buf(),
            source,
        }),
        Tool::Rsync | Tool::RsyncZ | Tool::RsyncSsh => {
            let wire = WireBytes::of_rsync(&String::from_utf8_lossy(&text()?));
            let wire = wire.ok_or_else(|| BenchError::NoStats { path: out.to_path_buf() })?;
            Ok(Said { fastcp: None, wire: Some(wire) })
        }
        _ => Ok(Said::default()),
    }
}

/// The summary is the last line.
fn said_by_fastcp(text: &[u8]) -> serde_json::Result<Said> {
    let last = text.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(Said { fastcp: Some(serde_json::from_slice(last)?), wire: Some(serde_json::from_slice(last)?) })
}

/// A command for people, without the names of this machine, and the port and the key of this run.
fn shown(words: &[OsString], route: &Route<'_>, listening: &Listening) -> String {
    let port = listening.address.port();
    let names = [(route.source, "SRC"), (route.destination, "DST"), (route.scratch, "SCRATCH")];
    let short = |word: &OsString| {
        let mut word = word.to_string_lossy().into_owned();
        if let Some(name) = route.programs.shorten(&word) {
            return name;
        }
        for (path, name) in names {
            word = word.replace(&*path.to_string_lossy(), name);
        }
        if let Some(key) = &listening.key {
            word = word.replace(key, "KEY");
        }
        if port != 0 {
            word = word.replace(&port.to_string(), "PORT");
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,+@%".contains(&byte);
        if !word.is_empty() && word.bytes().all(is_plain) { word } else { format!("'{word}'") }
    };
    words.iter().map(short).collect::<Vec<_>>().join(" ")
}
