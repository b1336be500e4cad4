//! Threads that do the same work on one job after the other.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Does jobs side by side, and lets the caller take the results in the order it likes.
///
/// A thread is started when a job comes that it could do, and none for a pool of one. Dropping the
/// pool ends all of them: jobs that did not begin are not done.
pub(crate) struct Workers<J, T> {
    work: fn(&J) -> T,
    max: NonZeroUsize,
    jobs: Option<Sender<(J, Sender<T>)>>,
    queue: Queue<J, T>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// The result of a job that may still be under way.
pub(crate) enum Ticket<T> {
    Done(T),
    UnderWay(Receiver<T>),
}

type Queue<J, T> = Arc<Mutex<Receiver<(J, Sender<T>)>>>;

impl<J: Send + 'static, T: Send + 'static> Workers<J, T> {
    pub(crate) fn new(max: NonZeroUsize, work: fn(&J) -> T) -> Self {
        let (jobs, queue) = mpsc::channel();
        Self {
            work,
            max,
            jobs: Some(jobs),
            queue: Arc::new(Mutex::new(queue)),
            stop: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// Returns how many jobs to submit before the first result is waited for: enough to keep every
    /// thread at work while one result is dealt with.
    pub(crate) fn depth(&self) -> usize {
        if self.max.get() == 1 { 1 } else { self.max.get().saturating_mul(2) }
    }

    /// Submits a job. It never waits for another one: how many are under way is the caller's care.
    ///
    /// The job is done here and now if the pool is of one, or if no thread can be started.
    pub(crate) fn submit(&mut self, job: J) -> Ticket<T> {
        if self.max.get() > 1 && self.threads.len() < self.max.get() {
            self.start_thread();
        }
        match &self.jobs {
            Some(jobs) if !self.threads.is_empty() => {
                let (result, ticket) = mpsc::channel();
                match jobs.send((job, result)) {
                    Ok(()) => Ticket::UnderWay(ticket),
                    Err(mpsc::SendError((job, _))) => Ticket::Done((self.work)(&job)),
                }
            }
            _ => Ticket::Done((self.work)(&job)),
        }
    }

    fn start_thread(&mut self) {
        let (work, queue, stop) = (self.work, Arc::clone(&self.queue), Arc::clone(&self.stop));
        let builder = thread::Builder::new().name("sbs-manifest".to_owned());
        let started = builder.spawn(move || {
            while let Some((job, result)) = next(&queue) {
                // The lock is not held here, so that the others go on.
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // Nothing is shared that a panic could leave half done. The thread has to live: it
                // may be the last one, and jobs may wait.
                if let Ok(done) = catch_unwind(AssertUnwindSafe(|| work(&job))) {
                    // Whoever does not want the result any more has dropped the ticket.
                    let _unwanted = result.send(done);
                }
            }
        });
        // Fewer threads than wished for give the same results.
        self.threads.extend(started);
    }
}

impl<J, T> Drop for Workers<J, T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            let _never_panics = thread.join();
        }
    }
}

impl<T> Ticket<T> {
    /// Waits for the result; none if the work panicked.
    pub(crate) fn wait(self) -> Option<T> {
        match self {
            Self::Done(result) => Some(result),
            Self::UnderWay(ticket) => ticket.recv().ok(),
        }
    }
}

fn next<J, T>(queue: &Queue<J, T>) -> Option<(J, Sender<T>)> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    fn workers<J: Send + 'static, T: Send + 'static>(
        count: usize,
        work: fn(&J) -> T,
    ) -> Workers<J, T> {
        Workers::new(NonZeroUsize::new(count).unwrap(), work)
    }

    #[test]
    fn results_belong_to_their_jobs_for_any_number_of_threads() {
        for count in [1, 2, 3, 8] {
            let mut workers = workers(count, |job: &u64| {
                thread::sleep(Duration::from_micros(*job % 7 * 100));
                job * job
            });
            let tickets: Vec<_> = (0..100).map(|job| workers.submit(job)).collect();
            let results: Vec<_> =
                tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect();
            assert_eq!(results, (0..100).map(|job| job * job).collect::<Vec<_>>());
            assert_eq!(workers.threads.len(), if count == 1 { 0 } else { count });
        }
    }

    #[test]
    fn panics_are_noticed_and_the_threads_go_on() {
        let mut workers = workers(2, |job: &u8| assert_ne!(*job, 0, "as the test wants it"));
        let tickets: Vec<_> = [0, 0, 0, 1].map(|job| workers.submit(job)).into();
        let results: Vec<_> = tickets.into_iter().map(Ticket::wait).collect();
        assert_eq!(results, [None, None, None, Some(())]);
    }

    #[test]
    fn dropping_ends_every_thread_and_leaves_waiting_jobs_undone() {
        struct Job(Arc<AtomicUsize>);
        let done = Arc::new(AtomicUsize::new(0));
        let mut workers = workers(2, |job: &Job| {
            thread::sleep(Duration::from_millis(20));
            job.0.fetch_add(1, Ordering::SeqCst);
        });
        let tickets: Vec<_> = (0..100).map(|_| workers.submit(Job(Arc::clone(&done)))).collect();
        drop(workers);
        // Every thread and the queue are gone, and their clones with them.
        assert_eq!(Arc::strong_count(&done), 1);
        assert!(done.load(Ordering::SeqCst) < 100);
        drop(tickets);
    }
}
