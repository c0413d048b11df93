#![no_main]
banyan_fuzz::target!("envelope");
