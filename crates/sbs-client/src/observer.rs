use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What an observer is told of: never a body, never a secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The server began to answer.
    Answered {
        /// The certificate that it showed, DER (RFC 5280).
        certificate: &'a [u8],
    },

    /// A download was cut; it goes on after a pause.
    Cut {
        /// The number of bytes of the file so far.
        bytes: u64,
        /// The pause.
        pause: Duration,
    },

    /// Some of a file came.
    Downloaded {
        /// The number of bytes so far; those of the reply where the file stands in one, as on v1.
        bytes: u64,
        /// How many there will be, if the server said that.
        total: Option<u64>,
    },

    /// A call ended, or the head of a file came.
    Ended {
        /// The time from the first byte sent to the last byte read.
        elapsed: Duration,
        /// The method.
        method: &'a str,
        /// The route.
        route: &'a str,
        /// The HTTP status, if the server answered.
        status: Option<u16>,
    },

    /// Some of a file was read to be sent.
    Uploaded {
        /// The number of bytes so far.
        bytes: u64,
        /// How many there will be.
        total: u64,
    },

    /// Some of a reply came.
    Received {
        /// The number of bytes of the reply so far.
        bytes: u64,
        /// The route.
        route: &'a str,
        /// The number of bytes that the server announced.
        total: Option<u64>,
    },
}

/// What the caller wants done at each [`Event`].
#[derive(Clone)]
pub(crate) struct Observer(Arc<dyn Fn(&Event<'_>) + Send + Sync>);

impl Observer {
    pub(crate) fn new(observe: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        (self.0)(event);
    }

    /// Tells who answers.
    pub(crate) fn answered(&self, response: &reqwest::Response) {
        let tls = response.extensions().get::<reqwest::tls::TlsInfo>();
        if let Some(certificate) = tls.and_then(reqwest::tls::TlsInfo::peer_certificate) {
            self.tell(&Event::Answered { certificate });
        }
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new(|_| ())
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
