#[klamm::test]
fn not_async(_kit: klamm::testing::TestKit) {}

#[klamm::test(deadline = "soon")]
async fn soon(_kit: klamm::testing::TestKit) {}

#[klamm::test]
async fn two(_kit: klamm::testing::TestKit, _other: klamm::testing::TestKit) {}

fn main() {}
