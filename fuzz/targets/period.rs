#![no_main]
banyan_fuzz::target!("period");
