//! The clinic's end of Banyan: capture, rules, the durable queue, sync.

pub mod queue;
