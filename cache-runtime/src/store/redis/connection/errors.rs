//! Classifies errors of the client, and turns them into texts for operators.

use std::time::Duration;

use redis::{ErrorKind as RedisErrorKind, RedisError};

use crate::base::error::{Error, ErrorKind, shortened};

/// Whether a replica refused to write. A demoted primary keeps its connections, so this is how a
/// process notices. Redis 6.2 wraps the error if a script caused it.
pub(crate) fn is_read_only(error: &RedisError) -> bool {
    let is_wrapped = || {
        error
            .detail()
            .is_some_and(|detail| detail.contains("READONLY"))
    };
    (error.code() == Some("READONLY") || is_wrapped())
        && !crate::base::mutation::is_active("demoted-primary-kept")
}

/// Whether the server refuses all writes at the moment: it could not save to its disk, or has too
/// few replicas. (A server over its memory limit still takes invalidations; the scripts make sure
/// of that.)
pub(crate) fn is_write_refused(error: &RedisError) -> bool {
    let is_one = |text: &str| text.starts_with("MISCONF") || text.starts_with("NOREPLICAS");
    // Redis 6.2 wraps the error if a script caused it.
    let in_script = |text: &str| text.contains("-MISCONF") || text.contains("-NOREPLICAS");
    error.code().is_some_and(is_one) || error.detail().is_some_and(in_script)
}

/// Whether the server's memory is full, and it may not evict. It still takes invalidations.
pub(crate) fn is_full(error: &RedisError) -> bool {
    // Redis 6.2 wraps the error if a script caused it.
    let in_script = |text: &str| text.contains("-OOM ");
    (error.code() == Some("OOM") || error.detail().is_some_and(in_script))
        && !crate::base::mutation::is_active("full-is-unavailable")
}

/// The errors of a server that can't serve anybody at the moment: it loads its data, is no primary
/// any more, has lost its primary, or has lost the rest of its cluster, or the keys are on two
/// nodes while their slot moves.
const AWAY: [&str; 5] = [
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "TRYAGAIN",
    "CLUSTERDOWN",
];

/// Whether the server is away although it has answered: the command will be taken by this server
/// later, or by another one, and nothing was refused to this user or for this key.
fn is_away(error: &RedisError) -> bool {
    // Redis 6.2 wraps the error if a script caused it.
    let in_script = |text: &str| {
        AWAY.iter()
            .any(|code| text.contains(&format!(": -{code} ")))
    };
    (error.code().is_some_and(|code| AWAY.contains(&code)) || error.detail().is_some_and(in_script))
        && !crate::base::mutation::is_active("loading-is-a-refusal")
}

/// Whether an answer has come that says so. Then nothing was too slow, and nothing too much.
pub(crate) fn says_away(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|it| it.downcast_ref::<RedisError>())
        .is_some_and(is_away)
}

/// Whether the connection has ended.
pub(crate) fn is_lost(error: &RedisError) -> bool {
    error.is_connection_dropped() || error.is_io_error()
}

/// Whether the reply can't be the answer to the command: it has another type, or is not RESP.
pub(crate) fn is_no_answer(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        RedisErrorKind::UnexpectedReturnType | RedisErrorKind::Parse
    )
}

/// Whether the user lacks permission for a command, or for one of its keys.
pub(crate) fn is_forbidden(error: &Error) -> bool {
    let of_client = |it: &(dyn std::error::Error + 'static)| {
        it.downcast_ref::<RedisError>()
            .is_some_and(|it| it.code() == Some("NOPERM"))
    };
    let source = std::error::Error::source(error);
    std::iter::successors(source, |it| it.source()).any(of_client)
}

/// The error that is reported if several keys could not be written: an outage in preference to
/// others, and a missing permission last. An outage ends by itself, so nothing of it may be taken
/// for refused.
pub(crate) fn graver(known: Option<Error>, error: Error) -> Error {
    let rank = |error: &Error| match error.kind() {
        ErrorKind::Unavailable => 2,
        _ => u8::from(!is_forbidden(error)),
    };
    known
        .filter(|known| rank(known) >= rank(&error))
        .filter(|_| !crate::base::mutation::is_active("last-error-is-reported"))
        .unwrap_or(error)
}

/// The fix for a certificate that is not trusted.
pub(crate) fn certificate_hint(text: &str) -> &'static str {
    if text.contains("CaUsedAsEndEntity") {
        "; it is an authority's own certificate: sign one for the server with it, and name the authority's in SSL_CERT_FILE"
    } else if text.contains("BadSignature") {
        "; if it is self-signed, name the server's own certificate in SSL_CERT_FILE, else that of the authority that has signed it"
    } else if text.contains("UnknownIssuer") {
        "; name the certificate of the authority that has signed it in SSL_CERT_FILE"
    } else if text.contains("Expired") || text.contains("certificate expired") {
        "; its time is over: give the server a new one, or correct the clock of this machine"
    } else if text.contains("NotValidYet") || text.contains("not valid yet") {
        "; its time has not come: correct the clock of this machine, or give the server another one"
    } else if text.contains("NotValidForName") || text.contains("not valid for name") {
        "; connect by a name that is in the certificate, or make one with this name"
    } else {
        ""
    }
}

/// The client's error as an operator should read it, without the system's error number.
pub(crate) fn described(error: RedisError) -> Error {
    let text = match error.kind() {
        RedisErrorKind::Io => {
            let text = error.to_string();
            text.split(" (os error")
                .next()
                .unwrap_or_default()
                .to_owned()
        }
        _ => match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            _ => error.to_string(),
        },
    };
    let text = format!("{}{}", shortened(&text), certificate_hint(&text));
    let has_no_answer = error.is_io_error() || error.is_connection_dropped() || error.is_timeout();
    let kind = match has_no_answer || is_away(&error) {
        true => ErrorKind::Unavailable,
        false => ErrorKind::Store,
    };
    Error::new(kind, text).with_source(error)
}

/// The error for a server that is not the primary.
pub(crate) const NO_PRIMARY: &str = "this is a replica; the cache needs the primary";

/// The error for a server whose data may be others than when the connection was made.
pub(crate) const OTHER_HISTORY: &str = "the server's data are of another history now (its \
    master_replid has changed): it was a replica for a moment, or a replica has connected for the \
    first time; the cache connects anew";

/// Whether nobody is answered: the process is gone, or it is loading its data and answers no reads.
pub(crate) fn answers_nobody(error: &Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    text.contains("connection refused") || text.starts_with("loading")
}

/// Whether an error means that the login is wrong, or missing.
pub(crate) fn is_login_refused(error: &str) -> bool {
    // `NOAUTH` as well.
    ["WRONGPASS", "AUTH"]
        .iter()
        .any(|code| error.contains(code))
}

/// Whether an error means a missing permission, in the texts of Redis 6.2, 7.0 and later.
pub(crate) fn is_refusal(error: &str) -> bool {
    [
        "NOPERM",
        "no permissions",
        "can't run this command",
        "can't access at least one of the keys",
    ]
    .iter()
    .any(|words| error.contains(words))
}

/// The commands that the script `TRY` was refused: of each pair in its answer, a name and an error.
pub(crate) fn refused_commands(answer: &[String]) -> Vec<String> {
    let pairs = answer.chunks_exact(2);
    let refused = pairs.filter(|pair| is_refusal(&pair[1]));
    refused.map(|pair| pair[0].clone()).collect()
}

/// The error for a server that takes no invalidations.
pub(crate) fn refused(reason: &str) -> String {
    format!("Redis answers reads and refuses writes, so nothing is served from it: {reason}")
}

/// The error for a command that has used up its budget.
pub(crate) fn unanswered(budget: Duration) -> Error {
    let budget = budget.as_millis();
    Error::unavailable(format!("Redis did not answer within {budget} ms"))
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn error(text: &str) -> RedisError {
        let reply = redis::parse_redis_value(format!("-{text}\r\n").as_bytes());
        reply
            .and_then(Value::extract_error)
            .expect_err("an error was sent")
    }

    #[test]
    fn an_outage_is_reported_in_preference_to_a_missing_permission() {
        let refused = || described(error("NOPERM no permissions to access a key"));
        let away = || Error::unavailable("away");
        let busy = || described(error("BUSY Redis is busy running a script"));
        for all in [
            [refused(), busy(), away()],
            [away(), refused(), busy()],
            [busy(), away(), refused()],
        ] {
            let reported = all
                .into_iter()
                .fold(None, |known, error| Some(graver(known, error)));
            assert_eq!(reported.expect("an error").kind(), ErrorKind::Unavailable);
        }
        assert!(!is_forbidden(&graver(Some(busy()), refused())));
        assert!(is_forbidden(&graver(Some(refused()), refused())));
    }

    /// What is refused is kept apart and tried ever less often, and a row is ended with its whole
    /// resource. A server that is away refuses nothing.
    #[test]
    fn a_server_that_is_away_refuses_nothing() {
        for away in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN Hash slot not served",
            "ERR Error running script (call to f_5fd0): @user_script:32: @user_script: 32: -READONLY You can't write against a read only replica.",
        ] {
            let error = described(error(away));
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{away}");
            assert!(says_away(&error), "{away}");
        }
        for refused in [
            "NOPERM User app has no permissions to access the 'LOADING' key",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ] {
            let error = described(error(refused));
            assert_eq!(error.kind(), ErrorKind::Store, "{refused}");
            assert!(!says_away(&error), "{refused}");
        }
        let lost = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(!says_away(&described(lost)), "nothing was answered");
    }

    #[test]
    fn a_missing_permission_is_found_behind_the_text_for_the_operator() {
        let refused = described(error(
            "NOPERM User app has no permissions to run the 'info' command",
        ));
        assert!(is_forbidden(&refused));
        let hinted = Error::new(ErrorKind::Store, "INFO was refused").with_source(refused);
        assert!(is_forbidden(&hinted));
        assert!(!is_forbidden(&described(error(
            "WRONGPASS invalid username-password pair"
        ))));
    }

    #[test]
    fn a_replicas_refusal_is_known_in_each_form() {
        for refusal in [
            "READONLY You can't write against a read only replica.",
            "READONLY You can't write against a read only replica. script: 5fd0, on @user_script:32.",
            "ERR Error running script (call to f_5fd0): @user_script:32: @user_script: 32: -READONLY You can't write against a read only replica.",
        ] {
            assert!(is_read_only(&error(refusal)), "{refusal}");
        }
        assert!(!is_read_only(&error("OOM command not allowed")));
    }
}
