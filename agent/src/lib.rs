//! The clinic's end of Banyan: capture, rules, the durable queue, sync.

pub mod backoff;
pub mod link;
pub mod queue;
