use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What an observer is told of: never a body, never a secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A call ended.
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
