package probe

import "encoding/binary"

// A message is a header of 16 bytes, big endian, and zeros up to the size that
// is tested:
//
//	0  magic "shoal-p" and the format (1)
//	8  nonce: an answer repeats the question's, with the highest bit set
//
// Answers are the header alone, so that nobody can make a node send more than
// what it was sent.
const (
	headerBytes = 16
	magic       = 0x73686f616c2d7001
	answerBit   = 1 << 63
	// packetOverhead is what IPv4 (20) and UDP (8) add to a message.
	packetOverhead = 28
)

// question makes a message of the given size.
func question(nonce uint64, size int) []byte {
	return message(nonce&^answerBit, max(size, headerBytes))
}

func message(nonce uint64, size int) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint64(b, magic)
	binary.BigEndian.PutUint64(b[8:], nonce)
	return b
}

// parse reads the header of what came in; ok is false for what is no message.
func parse(b []byte) (nonce uint64, answer, ok bool) {
	if len(b) < headerBytes || binary.BigEndian.Uint64(b) != magic {
		return 0, false, false
	}
	nonce = binary.BigEndian.Uint64(b[8:])
	return nonce &^ answerBit, nonce&answerBit != 0, true
}

// answer is the reply to a question.
func answer(nonce uint64) []byte { return message(nonce|answerBit, headerBytes) }
