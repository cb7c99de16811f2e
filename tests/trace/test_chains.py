from proxy.trace.chains import MOST, Chains


def test_conversation_when_it_is_unknown_then_the_reference_itself():
    assert Chains().conversation("shop", "resp_1") == "resp_1"


def test_conversation_when_a_response_was_noted_then_that_of_its_own_project_alone():
    chains = Chains()
    chains.note("shop", "resp_2", "resp_1")
    assert chains.conversation("shop", "resp_2") == "resp_1"
    assert chains.conversation("other", "resp_2") == "resp_2"
    assert chains.conversation(None, "resp_2") == "resp_2"


def test_note_when_there_are_many_then_the_oldest_are_forgotten():
    chains = Chains()
    for number in range(MOST + 1):
        chains.note("shop", f"resp_{number}", "conversation")
    assert chains.conversation("shop", "resp_0") == "resp_0"
    assert chains.conversation("shop", "resp_1") == chains.conversation("shop", f"resp_{MOST}") == "conversation"
