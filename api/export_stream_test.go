package api

// Listeners is how many streams of events are open.
func (s *Server) Listeners() int { return s.streams.listeners() }

// MostStreams that there may be.
const MostStreams = mostStreams
