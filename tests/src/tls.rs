//! Certificates for servers, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

const NAMES: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1";

/// A server's key and certificate, and the certificate that a client has to trust.
#[derive(Clone, Debug)]
pub struct Certificate {
    folder: Arc<TempDir>,
    is_signed: bool,
}

impl Certificate {
    /// For 127.0.0.1, signed by an authority of its own.
    ///
    /// # Panics
    /// When `openssl` is missing or fails.
    pub fn signed() -> Self {
        Self::signed_for(NAMES)
    }

    /// The same for another server: `subjectAltName=DNS:elsewhere.test`.
    ///
    /// # Panics
    /// When `openssl` is missing or fails.
    pub fn signed_for(names: &str) -> Self {
        let it = Self::in_folder(true);
        it.make(&[
            "req -x509 -subj /CN=authority -keyout authority.key -out authority.crt -days 2",
            "-addext basicConstraints=critical,CA:TRUE",
        ]);
        it.make(&["req -x509 -subj /CN=server -keyout server.key -out server.crt -days 2"]);
        it.make(&[
            "req -x509 -subj /CN=server -key server.key -out server.crt -days 2",
            "-CA authority.crt -CAkey authority.key -addext basicConstraints=critical,CA:FALSE -addext",
            names,
        ]);
        it
    }

    /// Signed by itself. `openssl` makes it an authority's too, unless it is told not to.
    ///
    /// # Panics
    /// When `openssl` is missing or fails.
    pub fn self_signed(is_authority: bool) -> Self {
        let it = Self::in_folder(false);
        let kind = match is_authority {
            true => "basicConstraints=critical,CA:TRUE",
            false => "basicConstraints=critical,CA:FALSE",
        };
        it.make(&[
            "req -x509 -subj /CN=server -keyout server.key -out server.crt -days 2 -addext",
            kind,
            "-addext",
            NAMES,
        ]);
        it
    }

    fn in_folder(is_signed: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory for certificates");
        Self {
            folder: Arc::new(folder),
            is_signed,
        }
    }

    fn make(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let arguments = arguments.join(" ");
        command.args(arguments.split(' ')).args(["-nodes"]);
        if !arguments.contains("-key ") {
            command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        }
        let made = command.current_dir(self.folder.path()).output();
        let made = made.expect("openssl runs; `apt-get install openssl` brings it");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The certificate that a client has to trust.
    pub fn trusted(&self) -> PathBuf {
        match self.is_signed {
            true => self.file("authority.crt"),
            false => self.file("server.crt"),
        }
    }

    /// Lines of `redis.conf` for a server that also listens for TLS on this port, and talks to the
    /// servers beside it that way.
    pub(crate) fn configuration(&self, port: u16) -> [String; 7] {
        let file = |path: &Path| format!("\"{}\"", path.display());
        [
            format!("tls-port {port}"),
            format!("tls-cert-file {}", file(&self.file("server.crt"))),
            format!("tls-key-file {}", file(&self.file("server.key"))),
            format!("tls-ca-cert-file {}", file(&self.trusted())),
            "tls-auth-clients no".to_owned(),
            "tls-replication yes".to_owned(),
            "tls-cluster yes".to_owned(),
        ]
    }
}
