//! Servers and clients that show certificates, for those who have an authority.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::client::{Client, Run, contents};
use crate::support::compare::assert_same;
use crate::support::server::Server;
use crate::support::tree::plain;
use crate::support::way::RECEIVES;
use crate::support::{Workspace, say_skipped};

/// An authority in a directory of its own.
struct Authority(PathBuf);

impl Authority {
    /// `None` where there is no `openssl`.
    fn new(dir: PathBuf) -> Option<Self> {
        fs::create_dir(&dir).expect("make");
        let authority = Self(dir);
        let words = "req -x509 -newkey ed25519 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority \
                     -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
        authority.openssl(words)?;
        Some(authority)
    }

    fn openssl(&self, words: &str) -> Option<()> {
        let mut command = Command::new("openssl");
        command.args(words.split_whitespace()).current_dir(&self.0).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().ok()?;
        assert!(status.success(), "openssl {words}");
        Some(())
    }

    /// The words that show a certificate of this holder.
    fn shown(&self, name: &str, holder: &str) -> String {
        let made = [
            format!(
                "req -newkey ed25519 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} -addext subjectAltName={holder}"
            ),
            format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -copy_extensions copy -days 2 -out {name}.pem"),
        ];
        made.iter().for_each(|words| self.openssl(words).expect("it is there"));
        let at = |end: &str| self.0.join(format!("{name}.{end}")).display().to_string();
        format!("--tls-cert {} --tls-key {}", at("pem"), at("key"))
    }

    fn trusted(&self) -> String {
        format!("--tls-ca {}", self.0.join("ca.pem").display())
    }
}

struct Scene {
    workspace: Workspace,
    source: PathBuf,
    ours: Authority,
    others: Authority,
}

impl Scene {
    fn new() -> Option<Self> {
        let workspace = Workspace::new();
        let source = plain(&workspace.at("source"));
        let ours = Authority::new(workspace.at("ours"))?;
        let others = Authority::new(workspace.at("others"))?;
        Some(Self { workspace, source, ours, others })
    }

    fn server(&self, words: &str) -> Server {
        Server::start_with(&self.source, &format!("127.0.0.1 0 {words}"))
    }

    fn copy(&self) -> PathBuf {
        self.workspace.at("copy")
    }

    fn pull(&self, server: &Server, words: &str) -> Run {
        self.own(Client::pull(server.url(""), self.copy())).options(words).run()
    }

    fn own(&self, client: Client) -> Client {
        client.variable("XDG_CONFIG_HOME", self.workspace.at("config"))
    }

    /// Before anything has come.
    fn expect_refused(&self, run: &Run, message: &str) {
        assert!(matches!(run.code, Some(5 | 10 | 12)), "{:?}: {}", run.code, run.stderr);
        assert!(run.stderr.contains(message), "\"{message}\" expected: {}", run.stderr);
        assert!(is_empty(&self.copy()), "something came");
    }
}

fn is_empty(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name() != ".fastcp").count() == 0
}

const NO_OPENSSL: &str = "openssl is not installed";

#[test]
fn a_server_is_believed_by_its_authority_and_by_no_other() {
    let Some(scene) = Scene::new() else { return say_skipped(NO_OPENSSL) };
    let server = scene.server(&format!("{} {RECEIVES}", scene.ours.shown("server", "IP:127.0.0.1,DNS:localhost")));
    scene.expect_refused(&scene.pull(&server, &scene.others.trusted()), "not from an authority");
    scene.pull(&server, &scene.ours.trusted()).expect_exit(0);
    assert_same(&scene.source, &scene.copy());
    assert!(!scene.workspace.at("config/fastcp/known_servers").exists(), "a certificate is not pinned");
    let by_name = format!("fcp://localhost:{}/", server.port());
    let client = || scene.own(Client::verify(scene.copy(), &by_name)).options(&scene.ours.trusted());
    client().run().expect_differences(&[]);
    let push = scene.own(Client::push(contents(&scene.copy()), server.url("pushed"))).options(&scene.ours.trusted());
    push.run().expect_exit(0);
    assert_same(&scene.copy(), &scene.source.join("pushed"));
}

#[test]
fn a_certificate_of_another_host_is_none_of_this_one() {
    let Some(scene) = Scene::new() else { return say_skipped(NO_OPENSSL) };
    let server = scene.server(&scene.ours.shown("server", "IP:192.0.2.1,DNS:elsewhere.example"));
    scene.expect_refused(&scene.pull(&server, &scene.ours.trusted()), "the certificate is of another host");
    assert!(!server.log().contains("session opened"), "{}", server.log());
}

#[test]
fn a_server_takes_clients_of_its_authority_and_no_others() {
    let Some(scene) = Scene::new() else { return say_skipped(NO_OPENSSL) };
    let shown = scene.ours.shown("server", "IP:127.0.0.1");
    let server = scene.server(&format!("{shown} {}", scene.ours.trusted()));
    let trusted = scene.ours.trusted();
    let nameless = scene.pull(&server, &trusted);
    scene.expect_refused(&nameless, "takes only clients that show a certificate");
    let stranger = scene.pull(&server, &format!("{trusted} {}", scene.others.shown("client", "DNS:client")));
    scene.expect_refused(&stranger, "takes only clients that show a certificate");
    let bare = scene.own(Client::pull(server.url(""), scene.copy())).options("--insecure").run();
    scene.expect_refused(&bare, "protected");
    assert!(!server.log().contains("session opened"), "{}", server.log());
    scene.pull(&server, &format!("{trusted} {}", scene.ours.shown("client", "DNS:client"))).expect_exit(0);
    assert_same(&scene.source, &scene.copy());
}
