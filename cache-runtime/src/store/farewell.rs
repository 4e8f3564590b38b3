//! The words with which a server hangs up before it was asked anything.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::base::error::shortened;

/// How long a server that hangs up may take to say why.
const BUDGET: Duration = Duration::from_millis(100);

/// How many bytes of it are read.
const MOST: u64 = 1024;

/// The message that a server sends to a new connection before it closes it, as with too many
/// clients, or where Redis is in protected mode. `None` if it sends none: most servers wait for a
/// command.
///
/// A client that has written to it already reads a reset in place of the words. So this connects
/// and only listens.
pub(crate) async fn farewell(server: SocketAddr) -> Option<String> {
    if crate::base::mutation::is_active("farewell-not-heard") {
        return None;
    }
    let listened = async {
        let peer = TcpStream::connect(server).await.ok()?;
        let mut words = Vec::new();
        // The message is complete even if a reset follows.
        let _ = peer.take(MOST).read_to_end(&mut words).await;
        let words = String::from_utf8_lossy(&words);
        words.lines().next().map(shortened)
    };
    let listened = crate::base::time::timeout(BUDGET, listened).await;
    listened.ok().flatten()
}
