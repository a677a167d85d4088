//! Tests with a kit, without one, with a deadline.

#[cfg(test)]
mod tests {
    use klamm::testing::TestKit;

    #[klamm::test]
    async fn with_a_kit(kit: TestKit) {
        kit.send("t", "k", "v").await;
    }

    #[klamm::test(deadline = "60s", needs_paused_clock)]
    async fn with_settings(_kit: TestKit) -> Result<(), String> {
        Ok(())
    }

    #[klamm::test]
    async fn without() {}
}
