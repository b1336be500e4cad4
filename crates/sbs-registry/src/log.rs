/// Where a session tells what it does and what it has to do again.
///
/// No line holds a secret: neither credentials nor what a registry sends are told unmasked.
pub trait Log: Send + Sync {
    /// Tells of a step.
    fn info(&self, message: &str);

    /// Tells of something that was not as it should be and was overcome.
    fn warning(&self, message: &str);
}
